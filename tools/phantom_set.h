// Made-up subjects as a data set on the disk: `ermoe-data phantom`. What they are is in data/phantom.h.
#pragma once

#include "data/phantom.h"

#include <cstdint>
#include <cstdio>
#include <string>

namespace ermoe {

struct PhantomSet {
  std::string folder;
  int64_t subjects = 600;
  PhantomSettings settings;
  std::string template_path = "/usr/share/mricron/templates/ch2bet.nii.gz";  // the Colin27 brain
  std::string atlas_path = "/usr/share/mricron/templates/aal.nii.gz";
};

/// Reads "20:80" into the settings. Throws `InputError`.
void set_ages(PhantomSettings& settings, const std::string& text);

/// Reads "ventricles:0.015;middle_frontal:7-8:-0.006" into the settings, as `parse_plant`. Throws `InputError`.
void set_plant(PhantomSettings& settings, const std::string& text);

struct PhantomSetDone {
  int64_t made = 0, kept = 0;  // subjects; those kept were there from a run that was interrupted
  double best_error = 0;       // years, mean absolute, of the best predictor
};

/// Writes a BIDS folder: pictures (sub-*/anat), region maps (derivatives/regions) with their labels, participants.tsv, phantom.json with
/// what is planted and what the best predictor of age reaches, truth.tsv with each subject's true effects, and a README. What is written
/// depends on the settings alone. participants.tsv comes last: with it the folder is whole. Without it, and with a phantom.json of the same
/// settings, a run that was interrupted goes on. Progress goes to `out`. Throws `InputError` where the folder holds anything else, the
/// template is missing or unfit, deformations cannot reach what is planted, or the folder cannot be written.
PhantomSetDone write_phantom_set(const PhantomSet& set, int threads, std::FILE* out);

}  // namespace ermoe
