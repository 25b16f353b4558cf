// What `ermoe-eval --looks` writes and prints. Read first: tools/looks.h.
#pragma once

#include "tools/looks.h"

#include <string>
#include <vector>

namespace ermoe {

/// Writes tables, maps and pictures into a folder, which is made, and returns their paths as the user is told them.
std::vector<std::string> write_looks(const Looks& looks, const std::string& folder);

/// fold,block,expert,routing,region,name,share,region_share,ratio,null_mean,null_sd,p, and of the weight that falls into regions alone
/// brain_share,brain_ratio,brain_p; without folds the first is empty, and so are the last of the background.
std::string experts_csv(const Looks& looks);
/// region,name,planted,attribution,volume,ratio,p,change
std::string occlusion_csv(const Looks& looks);

/// Lines for people, and the same figures.
std::string looks_text(const Looks& looks, const std::vector<std::string>& written);
std::string looks_json(const Looks& looks, const std::vector<std::string>& written);

}  // namespace ermoe
