// Teams without OpenMP, where there is no runtime or none that may be used: threads of our own that wait for work.
#pragma once
#include "parallel.hpp"

namespace convkit::pool {

// As convkit::run_team. The team has as many members as threads can be had; returns how many.
int run_team(int threads, TeamFunction function, void* context);
// Waits for all members of the team that the calling thread is in.
void barrier();

// Around fork, so that a child inherits no half-changed list.
void before_fork();
void after_fork(bool in_child);

}  // namespace convkit::pool
