// How far the CPUs of a team are apart.
#pragma once

namespace convkit {

// Seconds in which one member of a team hands a word on to the next, the shortest of a few. What takes long, as where
// members share a CPU, is cut off at two milliseconds.
double handover_seconds(int threads);

}  // namespace convkit
