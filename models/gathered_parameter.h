// A derived parameter with an axis of experts in front, that each rank makes for its own experts alone and reads for more: made parts are
// gathered before a step's forward pass, and gradients are summed up where the parts were made. Where a rank owns all experts the
// two are one, and nothing moves. Read first: models/expert_share.h, models/derived.h.
#pragma once

#include "models/derived.h"
#include "models/expert_share.h"
#include "models/module.h"

namespace ermoe {

/// For which experts a rank reads it: those that it holds, whose matrices it computes with, or all, as a router does.
enum class Reach { held, all };

class GatheredParameter {
 public:
  explicit GatheredParameter(Reach reach) : reach_(reach) { whole_.role = Parameter::Role::derived; }

  /// What this rank makes from its factors: (own, …).
  DerivedParameter& made() { return made_; }
  Parameter& made_parameter() { return made_.parameter; }
  /// What ops read: (held, …) or (all, …).
  Parameter& parameter() { return apart_ ? whole_ : made_.parameter; }

  /// From here on this rank makes the rows of `share`. Before memory is given to parameters.
  void share_out(const ExpertShare& share);
  void visit(const std::string& prefix, const std::string& name, const Visitor& visitor);

  // Collectives, in two parts of which the second needs the first to be done; nothing where nothing is apart.
  /// After the own part was made: gathers it among the replica ranks …
  void gather_held(const ExecContext& ctx);
  /// … and, with Reach::all, among the expert ranks.
  void gather_all(const ExecContext& ctx);
  /// When nobody writes the gradient any more, before the next two: zeros where nobody on this rank did.
  void end_gradient();
  /// When the gradient is complete: its sums over the expert ranks (Reach::all) …
  void reduce_to_held(const ExecContext& ctx);
  /// … and over the replica ranks, into the gradient of what was made.
  void reduce_to_own(const ExecContext& ctx);

 private:
  Tensor held_rows(const Tensor& t) const;

  Reach reach_;
  bool apart_ = false;
  ExpertShare share_;
  DerivedParameter made_;
  Parameter whole_;
};

}  // namespace ermoe
