// The one door to threads. Nothing else in convkit names OpenMP.
#pragma once

namespace convkit {

// Called once by every member of a team, with its index in [0, size).
using TeamFunction = void (*)(void* context, int index, int size);

// Runs `function` on a team of at most `threads` members (the caller is member 0) and returns when all are done.
// Members must take their share from `size`, never from what was asked for: inside a running team, and in a child forked
// from a process that had started one, the team is the caller alone.
void run_team(int threads, TeamFunction function, void* context);

// Waits for all members of the innermost team. Every member calls it the same number of times.
void team_barrier();

// The team size a call gets when it names none: OpenMP's limit (OMP_NUM_THREADS, threadpoolctl), bounded by the affinity
// mask and the cgroup quota; 1 inside a running team and in a child forked after a team had started.
int default_threads();
// CPUs of the affinity mask bounded by the cgroup quota; read once, and again after fork.
int available_cpus();

// How often a team of more than one was started in this process (for tests).
long teams_started();

}  // namespace convkit
