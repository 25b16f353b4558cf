#include "tools/looks_report.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/csv.h"
#include "data/encode_png.h"
#include "data/nifti.h"
#include "tools/expert_slices.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <filesystem>

namespace ermoe {
namespace {

using nlohmann::ordered_json;

void make_folder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  check_input(!error && std::filesystem::is_directory(path, error), "--looks: {}: the folder cannot be made", path);
}

const char* routing_of(const BlockLooks& block, int64_t expert) {
  return block.imposed[static_cast<size_t>(expert)] ? "by mask" : "own choice";
}

/// Of each expert in the rows' order.
std::vector<MapRow> rows_of(const ModelLooks& model, const BlockLooks& block, double spacing) {
  std::vector<MapRow> rows;
  for (int64_t e = 0; e < block.experts; ++e) {
    const std::string title = fmt::format("expert {}{}: {:.1f} % of the weight", e,
                                          block.imposed[static_cast<size_t>(e)] ? " (by mask)" : "", 100 * block.share_of(e));
    rows.push_back({title, spread_over_voxels(model.patches, block.maps[static_cast<size_t>(e)], spacing)});
  }
  return rows;
}

double highest_of(const std::vector<MapRow>& rows) {
  float highest = 0;
  for (const MapRow& row : rows) highest = std::max(highest, *std::ranges::max_element(row.map.values));
  return highest;
}

void write_block(const ModelLooks& model, const BlockLooks& block, double spacing, const std::string& folder) {
  const std::vector<MapRow> rows = rows_of(model, block, spacing);
  for (size_t e = 0; e < rows.size(); ++e)
    write_nifti(fmt::format("{}/maps/block{}_expert{}.nii.gz", folder, block.block, e), rows[e].map,
                {.description = fmt::format("mean weight of expert {} of block {}", e, block.block)});
  const std::string title = fmt::format("block {}: weight of each expert, {} subjects", block.block, model.attribution.subjects);
  write_png(fmt::format("{}/block{}.png", folder, block.block),
            draw_maps(model.brain, rows, model.patches.side, 0, highest_of(rows), title, "mean weight"));
}

void write_occlusion(const Looks& looks, const std::string& folder) {
  write_nifti(folder + "/occlusion.nii.gz", looks.attribution, {.description = "mean |change| of the prediction, covered"});
  write_nifti(folder + "/occlusion_change.nii.gz", looks.change, {.description = "mean change of the prediction, covered"});
  write_nifti(folder + "/occlusion_slope.nii.gz", looks.slope, {.description = "how much less the prediction follows age, covered"});
  const auto draw = [&](const char* name, const char* title, const Volume& map, const char* unit) {
    const std::vector<MapRow> rows = {{title, map}};
    write_png(fmt::format("{}/{}.png", folder, name),
              draw_maps(looks.brain, rows, looks.cube, 0, highest_of(rows), fmt::format("covered: {} subjects", looks.subjects), unit));
  };
  draw("occlusion", "mean |change|", looks.attribution, "years");
  draw("occlusion_slope", "follows age less by", looks.slope, "years a year");
}

ordered_json json_of(const std::optional<Information>& information) {
  if (!information) return nullptr;
  return {{"nats", information->seen}, {"null_mean", information->null_mean}, {"p", information->p}};
}

ordered_json json_of(const RegionAttribution& region) {
  return {{"attribution", region.share}, {"volume", region.volume}, {"ratio", region.ratio()},     {"p", region.p},
          {"change", region.change},     {"whole", region.whole},   {"slope", region.slope_share}, {"slope_ratio", region.slope_ratio()},
          {"slope_p", region.slope_p}};
}

std::string information_text(const std::optional<Information>& information) {
  return information ? fmt::format("{:.4f} (by chance {:.4f}, p {:.3g})", information->seen, information->null_mean, information->p)
                     : std::string("n/a");
}

std::string blocks_text(const Looks& looks) {
  if (looks.information.empty()) return "no block has experts\n";
  if (looks.models[0].labels.empty()) return "no maps of regions: --regions says where they lie\n";
  std::string text = "mutual information of expert and region, nats\n";
  for (const BlockInformation& block : looks.information) {
    text += fmt::format("  block {:<3} with the background {}, within the brain {}\n", block.block, information_text(block.everywhere),
                        information_text(block.inside));
    if (block.imposed) text += "            of the free experts alone: moe.regions keeps the others to regions, which is no finding\n";
  }
  return text;
}

std::string regions_text(const Looks& looks) {
  const AttributionReport& report = looks.report;
  if (report.regions.empty()) return {};
  std::vector<RegionAttribution> sorted = report.regions;
  std::ranges::stable_sort(sorted, std::greater{}, &RegionAttribution::ratio);
  std::string text = fmt::format("\n{:<28} {:>8} {:>11} {:>7} {:>7} {:>9} {:>7} {:>7} {:>11}\n", "region", "volume", "attribution", "ratio",
                                 "p", "of slope", "ratio", "p", "all covered");
  double whole = 0;
  for (const RegionAttribution& r : sorted) {
    text += fmt::format("{:<28} {:>6.1f} % {:>9.1f} % {:>7.2f} {:>7.3g} {:>7.1f} % {:>7.2f} {:>7.3g} {:>11.2f}\n",
                        printable(looks.names.name(r.label)), 100 * r.volume, 100 * r.share, r.ratio(), r.p, 100 * r.slope_share,
                        r.slope_ratio(), r.slope_p, r.whole);
    whole += r.whole;
  }
  text += fmt::format("({:.1f} % of all attribution falls on voxels outside of the regions)\n", 100 * report.background);
  if (report.planted)
    text += fmt::format(
        "planted regions: {:.1f} % of the volume; {:.1f} % of the attribution, ratio {:.2f}, p {:.3g}; {:.1f} % of the slope, ratio "
        "{:.2f}, "
        "p {:.3g}; covered whole, {:.1f} % of what all regions change\n",
        100 * report.planted->volume, 100 * report.planted->share, report.planted->ratio(), report.planted->p,
        100 * report.planted->slope_share, report.planted->slope_ratio(), report.planted->slope_p,
        whole > 0 ? 100 * report.planted->whole / whole : 0);
  return text;
}

/// Of few subjects there are few draws that differ.
std::string doubts_text(const Looks& looks) {
  int64_t fewest = looks.subjects;
  for (const ModelLooks& model : looks.models) fewest = std::min(fewest, model.attribution.subjects);
  constexpr int64_t enough = 10;
  if (fewest >= enough || looks.models[0].labels.empty()) return {};
  return fmt::format("note: with {} subjects{} p of an expert cannot fall below about {:.2g}\n", fewest,
                     looks.models.size() > 1 ? " a fold" : "", std::min(1.0, 2 * std::pow(0.5, static_cast<double>(fewest))));
}

}  // namespace

std::string experts_csv(const Looks& looks) {
  std::string text = "fold,block,expert,routing,region,name,share,region_share,ratio,null_mean,null_sd,p,brain_share,brain_ratio,brain_p\n";
  for (const ModelLooks& model : looks.models)
    for (const BlockLooks& block : model.blocks) {
      auto inside = block.brain_cells.begin();
      for (size_t c = 0; c < block.cells.size(); ++c) {
        const ExpertRegion& cell = block.cells[c];
        const auto expert = static_cast<int64_t>(c / model.labels.size());
        const int64_t label = model.labels[c % model.labels.size()];
        text += fmt::format("{},{},{},{},{},{},", model.fold > 0 ? std::to_string(model.fold) : "", block.block, expert,
                            routing_of(block, expert), label, csv_field(looks.names.name(label)));
        text += fmt::format("{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},", cell.share, cell.region_share, cell.ratio(), cell.null_mean,
                            cell.null_deviation, cell.p);
        if (label == 0) {
          text += ",,\n";
          continue;
        }
        text += fmt::format("{:.6g},{:.6g},{:.6g}\n", inside->share, inside->ratio(), inside->p);
        ++inside;
      }
    }
  return text;
}

std::string occlusion_csv(const Looks& looks) {
  std::string text = "region,name,planted,attribution,volume,ratio,p,change,whole,slope,slope_ratio,slope_p\n";
  for (const RegionAttribution& r : looks.report.regions)
    text += fmt::format("{},{},{},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g}\n", r.label,
                        csv_field(looks.names.name(r.label)), std::ranges::binary_search(looks.names.planted(), r.label) ? 1 : 0, r.share,
                        r.volume, r.ratio(), r.p, r.change, r.whole, r.slope_share, r.slope_ratio(), r.slope_p);
  return text;
}

std::vector<std::string> write_looks(const Looks& looks, const std::string& folder) {
  std::vector<std::string> written;
  const auto table = [&](const std::string& name, const std::string& text) {
    write_file(folder + "/" + name, text);
    written.push_back(folder + "/" + name);
  };
  make_folder(folder);
  if (!looks.models[0].labels.empty()) {
    table("experts.csv", experts_csv(looks));
    table("occlusion.csv", occlusion_csv(looks));
  }
  for (const ModelLooks& model : looks.models) {
    const std::string own = model.fold > 0 ? fmt::format("{}/fold-{}", folder, model.fold) : folder;
    make_folder(own + "/maps");
    for (const BlockLooks& block : model.blocks) write_block(model, block, looks.spacing, own);
    if (!model.blocks.empty()) written.insert(written.end(), {own + "/maps/", own + "/block*.png"});
  }
  write_occlusion(looks, folder);
  written.insert(written.end(), {folder + "/occlusion.nii.gz", folder + "/occlusion_change.nii.gz", folder + "/occlusion_slope.nii.gz",
                                 folder + "/occlusion.png", folder + "/occlusion_slope.png"});
  return written;
}

std::string looks_text(const Looks& looks, const std::vector<std::string>& written) {
  const CubeGrid& cubes = looks.models[0].attribution.grid;
  std::string text = fmt::format(
      "{} subjects, seen by {}\n{}{}{}\ncovered: cubes of {} mm, {} a brain\nwritten:", looks.subjects,
      looks.models.size() > 1 ? fmt::format("the {} models that never saw them", looks.models.size()) : looks.models[0].checkpoint,
      blocks_text(looks), regions_text(looks), doubts_text(looks), static_cast<double>(cubes.side) * looks.spacing, cubes.count());
  for (const std::string& path : written) text += " " + path;
  return text + "\n";
}

std::string looks_json(const Looks& looks, const std::vector<std::string>& written) {
  ordered_json out;
  out["subjects"] = looks.subjects;
  out["models"] = ordered_json::array();
  for (const ModelLooks& model : looks.models)
    out["models"].push_back({{"checkpoint", model.checkpoint}, {"subjects", model.attribution.subjects}});
  out["blocks"] = ordered_json::array();
  for (const BlockInformation& block : looks.information)
    out["blocks"].push_back({{"block", block.block},
                             {"imposed_by_mask", block.imposed},
                             {"information", json_of(block.everywhere)},
                             {"information_within_brain", json_of(block.inside)}});
  out["cube_mm"] = static_cast<double>(looks.cube) * looks.spacing;
  out["regions"] = ordered_json::array();
  for (const RegionAttribution& r : looks.report.regions) {
    ordered_json one = {{"region", r.label}, {"name", looks.names.name(r.label)}};
    one.update(json_of(r));
    out["regions"].push_back(one);
  }
  out["outside_regions"] = looks.report.background;
  out["planted"] = looks.report.planted ? json_of(*looks.report.planted) : ordered_json(nullptr);
  out["null_smoothness_mm"] = looks.report.smoothness_mm;
  out["written"] = written;
  return out.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace ermoe
