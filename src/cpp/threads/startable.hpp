// Whether threads can be started, asked before an OpenMP runtime finds out: one that cannot start a thread ends the process.
#pragma once

namespace convkit {

// How many of `wanted` more threads can be started now, with stacks such as OpenMP's workers get. Starts them all at once
// and ends them again.
int startable_threads(int wanted) noexcept;

}  // namespace convkit
