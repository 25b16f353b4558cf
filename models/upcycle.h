// Experts from a dense network: what a trained two-layer network knows is where each expert of a layer begins ("sparse upcycling",
// Komatsuzaki et al., arXiv 2212.05055; here also of eigen experts). Read next: models/weights.cpp, docs/upcycling.md.
#pragma once

#include "core/rng.h"
#include "models/config.h"
#include "models/module.h"

#include <functional>
#include <string>
#include <vector>

namespace ermoe {

/// The tensor of that name, on the host in the model's dtype; undefined where there is none.
using FindTensor = std::function<Tensor(const std::string& name)>;

struct UpcycleSettings {
  std::string source;  // what faults call the weights: a file's path
  double noise = 0;    // deviation of the factors 1 + noise · normal on each expert's singular values, or on plain experts' weights
  RngKey key;          // that draws them
};

struct Upcycled {
  std::vector<std::string> blocks;  // "blocks.1": whose experts were made
  std::vector<std::string> used;    // names of the dense tensors that made them
  std::string summary;              // one line for the user; empty where nothing was made
};

/// For each block N of `config` with experts in the place of the dense network, of which `find` knows blocks.N.mlp.fc1.weight (F, D) and
/// no experts: makes all its experts that network, W2 gelu(W1 x + b1) + b2. Plain ones are copies. Of eigen ones W = U diag(s) Vᵀ is the
/// singular value decomposition, cut to the rank of the factors. Scored expert e of E has the triplets e, e + E, e + 2E, … in front, then
/// those of expert e + 1, and so on: W is the same, and the routing bases (leading, disjoint, or untied, which become those columns of
/// V1) have no column in common while E·R is at most the rank. Routers have no other start than their own.
/// Of router ermoe with weights that add up to 1, and factors of full rank, the model computes what the dense one did.
/// All is left as `init` made it where nothing is found. Throws InputError where the network has another shape than the experts, a part
/// of it is missing, or its rank does not give each expert a basis of its own. `tower` stands before every name ("visual."). The caller
/// refreshes the model.
Upcycled upcycle(Module& model, const VitConfig& config, const FindTensor& find, const UpcycleSettings& settings,
                 const std::string& tower = "");

}  // namespace ermoe
