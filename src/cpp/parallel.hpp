// The one door to threads. Nothing else in convkit names OpenMP.
#pragma once

namespace convkit {

// Called once by every member of a team, with its index in [0, size).
using TeamFunction = void (*)(void* context, int index, int size);

// Runs `function` on a team of exactly `threads` members (the caller is member 0) and returns when all are done.
// threads == 1 calls the function directly. Inside a running team, and in a child forked from a process that had started
// a team, the members run one after the other is not possible (they may use barriers), so size is 1: a kernel must take
// its share from `size`, never from what it asked for.
void run_team(int threads, TeamFunction function, void* context);

// Waits for all members of the innermost team. Every member calls it the same number of times.
void team_barrier();

// The team size a call gets when it names none: OpenMP's limit (OMP_NUM_THREADS, threadpoolctl), bounded by the affinity
// mask and the cgroup quota; 1 inside a running team and in a child forked after a team had started.
int default_threads();
// The most a call may get when it names a number: the same without OpenMP's limit and without the affinity bound.
int clamp_threads(int asked);
// CPUs of the affinity mask bounded by the cgroup quota; read once, and again after fork.
int available_cpus();

// How often a team of more than one was started in this process (for tests).
long teams_started();

// Half-open share of `count` items for member `index` of `size`: even, in order, the first count % size one larger.
struct Share {
  long long begin, end;
};

}  // namespace convkit
