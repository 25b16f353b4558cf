#include "data/folds.h"

#include "core/error.h"
#include "data/sampler.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace ermoe {

namespace {

struct Member {
  double age;
  size_t sample;
};

struct Group {
  double age;
  std::vector<Member> members;
};

/// By name, so that what follows does not depend on the order of the samples; the sums do not either, since members are sorted.
std::vector<Group> groups_of(std::span<const double> ages, std::span<const std::string> names) {
  std::map<std::string, Group> by_name;
  for (size_t i = 0; i < ages.size(); ++i) {
    check(std::isfinite(ages[i]), "[stratified_folds] the age of \"{}\" is {}", names[i], ages[i]);
    by_name[names[i]].members.push_back({ages[i], i});
  }
  std::vector<Group> groups;
  for (auto& [name, group] : by_name) {
    std::ranges::sort(group.members, {}, &Member::age);
    double total = 0;
    for (const Member& member : group.members) total += member.age;
    group.age = total / static_cast<double>(group.members.size());
    groups.push_back(std::move(group));
  }
  return groups;
}

}  // namespace

std::vector<int> stratified_folds(std::span<const double> ages, std::span<const std::string> names, int k, uint64_t seed) {
  check(ages.size() == names.size(), "[stratified_folds] {} ages of {} samples", ages.size(), names.size());
  std::vector<Group> groups = groups_of(ages, names);
  check_input(k >= 2, "data.folds: a cross-validation wants at least 2 folds, not {}", k);
  check_input(groups.size() >= static_cast<size_t>(k), "data.folds: {} subjects cannot be dealt out to {} folds", groups.size(), k);
  std::ranges::stable_sort(groups, {}, &Group::age);
  std::vector<int> folds(ages.size());
  for (size_t g = 0; g < groups.size(); ++g) {
    const size_t block = g / static_cast<size_t>(k), place = g % static_cast<size_t>(k);
    const Permutation deal(k, RngKey{seed}.fold(block));
    for (const Member& member : groups[g].members) folds[member.sample] = static_cast<int>(deal(static_cast<int64_t>(place)));
  }
  return folds;
}

}  // namespace ermoe
