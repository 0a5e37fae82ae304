// The one door to threads: what is behind it, OpenMP or a pool, is in threads/.
#pragma once

namespace convkit {

// Called once by every member of a team, with its index in [0, size).
using TeamFunction = void (*)(void* context, int index, int size);

// Runs `function` on a team of at most `threads` members (the caller is member 0) and returns when all are done. They
// compute as the caller does: with its rounding, and with its way of treating subnormals.
// Members must take their share from `size`, never from what was asked for: inside a running team, of whichever library,
// the team is the caller alone, and where threads cannot be started it is smaller.
void run_team(int threads, TeamFunction function, void* context);

// Waits for all members of the innermost team. Every member calls it the same number of times.
void team_barrier();

// The team size a call gets when it names none: OpenMP's limit (OMP_NUM_THREADS, threadpoolctl), bounded by the affinity
// mask and the cgroup quota; 1 inside a running team.
int default_threads();
// CPUs of the affinity mask bounded by the cgroup quota; read once, and again after fork.
int available_cpus();

// Teams run on the OpenMP runtime of PyTorch, else of another library, else of the system, else on threads of convkit's
// own. This looks again if libraries were loaded since. Throws std::invalid_argument for a bad CONVKIT_OPENMP.
void look_for_runtime();
// The file of that runtime; empty if teams run on convkit's own threads.
const char* thread_runtime();

// How often a team of more than one was started in this process (for tests).
long teams_started();

}  // namespace convkit
