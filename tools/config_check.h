// What cannot be had together, found before any work starts. Single values were checked when they were read.
#pragma once

#include "tools/run_config.h"

#include <string>
#include <string_view>
#include <vector>

namespace ermoe {

/// Throws InputError naming the keys of an impossible combination; returns warnings. Settings that are still to be read
/// off the data (0) are taken as fitting: call it again once they are filled in.
std::vector<std::string> validate(const RunConfig& config);

/// True where a loss term is a mean over the tokens of captions: their number, without padding, is known to the whole batch alone.
bool means_over_captions(const RunConfig& config);

/// Throws InputError where the model takes volumes or the loss wants numbers: what is read from disk are classes of images.
void require_classes_of_images(const RunConfig& config, std::string_view source);

/// Throws InputError unless a data set is given.
void require_data(const RunConfig& config);

/// The cores that this process may use: its affinity mask. Empty where the system does not say.
std::vector<int> usable_cores();

/// Threads to compute with: as asked (train.threads), or where that is 0 the share of one of so many `ranks` on this process' cores
/// (`nproc` counts them).
int resolve_threads(int64_t asked, int ranks = 1);

}  // namespace ermoe
