// Which samples are held out together in a cross-validation. Read next: data/subject_table.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace ermoe {

/// The fold, in [0, k), of each sample, such that every fold has the same distribution of ages: subjects are sorted by age and cut into
/// blocks of k, each of which the seed deals out to the k folds. All samples of one subject (`groups`, one a sample) go to one fold; its
/// age is the mean of theirs. Folds differ by at most one subject. The same for any order of the samples and on any machine.
/// Throws `InputError` for k < 2 and for fewer subjects than folds, `Error` for an age that is not finite or a group missing.
std::vector<int> stratified_folds(std::span<const double> ages, std::span<const std::string> groups, int k, uint64_t seed);

}  // namespace ermoe
