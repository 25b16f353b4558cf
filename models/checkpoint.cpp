#include "models/checkpoint.h"

#include "core/file_io.h"
#include "core/gather.h"
#include "core/json.h"
#include "models/average.h"
#include "models/saved_slices.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace ermoe {
namespace {

constexpr int64_t format_version = 1;

nlohmann::json to_json(const TrainingProgress& p, int64_t optimizer_steps) {
  return {{"format", format_version}, {"step", p.step},
          {"bad_steps", p.bad_steps}, {"skipped", p.skipped},
          {"epoch", p.epoch},         {"epoch_step", p.epoch_step},
          {"seed", p.seed},           {"best", p.best},
          {"has_best", p.has_best},   {"optimizer_steps", optimizer_steps},
          {"config", p.config},       {"classes", p.classes}};
}

nlohmann::json read_state(const std::string& folder) {
  const std::string path = folder + "/state.json";
  return parse_json(read_file(path, size_t{1} << 24), path);
}

void write_state(const std::string& folder, const TrainingProgress& progress, int64_t optimizer_steps) {
  FileWriter state(folder + "/state.json");
  // Names of folders and classes need not be UTF-8.
  state.write(to_json(progress, optimizer_steps).dump(1, ' ', false, nlohmann::json::error_handler_t::replace));
  state.close();
}

uint32_t write_weights(const ExecContext& ctx, const std::string& folder, Model& model) {
  return save_weights(ctx, folder + "/model.safetensors", model, {{"format", "ermoe"}});
}

}  // namespace

FileChecksums write_model(const ExecContext& ctx, const std::string& folder, Model& model, const TrainingProgress& progress) {
  FileChecksums checksums;
  checksums["model.safetensors"] = write_weights(ctx, folder, model);
  write_state(folder, progress, 0);
  return checksums;
}

FileChecksums write_checkpoint(const ExecContext& ctx, const std::string& folder, Model& model, const Optimizer& optimizer,
                               const MovingAverage* average, const TrainingProgress& progress) {
  FileChecksums checksums;
  checksums["model.safetensors"] = write_weights(ctx, folder, model);
  if (average != nullptr) checksums["ema.safetensors"] = save_average(ctx, folder + "/ema.safetensors", *average);
  const std::vector<SavedSlice> moments = saved_slices(optimizer, ctx.comm->rank());
  checksums["optimizer.safetensors"] = write_slices(folder + "/optimizer.safetensors", moments, *ctx.comm);
  const int64_t steps = optimizer.steps();
  all_or_none(*ctx.comm, [&] {
    if (ctx.comm->rank() == 0) write_state(folder, progress, steps);
  });
  return checksums;
}

TrainingProgress read_progress(const std::string& folder) {
  const nlohmann::json json = read_state(folder);
  try {
    check_input(json.at("format").get<int64_t>() == format_version, "{}/state.json: format {} but this program reads {}", folder,
                json.at("format").get<int64_t>(), format_version);
    TrainingProgress p;
    json.at("step").get_to(p.step);
    json.at("bad_steps").get_to(p.bad_steps);
    json.at("skipped").get_to(p.skipped);
    json.at("epoch").get_to(p.epoch);
    json.at("epoch_step").get_to(p.epoch_step);
    json.at("seed").get_to(p.seed);
    json.at("best").get_to(p.best);
    json.at("has_best").get_to(p.has_best);
    json.at("config").get_to(p.config);
    json.at("classes").get_to(p.classes);
    check_input(p.step >= 0 && p.epoch >= 0 && p.epoch_step >= 0, "{}/state.json: a negative step", folder);
    return p;
  } catch (const nlohmann::json::exception& fault) {
    fail_input("{}/state.json: {}", folder, fault.what());
  }
}

void read_checkpoint(const ExecContext& ctx, const std::string& folder, Model& model, Optimizer& optimizer, MovingAverage* average) {
  const nlohmann::json json = read_state(folder);
  check_input(json.contains("optimizer_steps") && json["optimizer_steps"].is_number_integer(), "{}/state.json: optimizer_steps is missing",
              folder);
  load_weights(ctx, folder + "/model.safetensors", model);
  optimizer.set_steps(json["optimizer_steps"].get<int64_t>());
  read_slices(SafetensorsFile::open(folder + "/optimizer.safetensors"), saved_slices(optimizer, ctx.comm->rank()), Unlisted::ignored);
  if (average != nullptr) read_average(ctx, folder, *average);
}

void read_average(const ExecContext& ctx, const std::string& folder, MovingAverage& average) {
  read_slices(SafetensorsFile::open(folder + "/ema.safetensors"), saved_slices(average, ctx.comm->rank()), Unlisted::ignored);
}

void read_average_with_statistics(const ExecContext& ctx, const std::string& folder, Model& model, MovingAverage& average) {
  const SafetensorsFile file = SafetensorsFile::open(folder + "/ema.safetensors");
  std::vector<Buffer> wanted = copies_of_buffers(model);
  const bool there = std::ranges::all_of(wanted, [&](const Buffer& b) { return file.has(b.name); });
  if (there) average.keep_statistics(std::move(wanted));
  read_average(ctx, folder, average);
}

}  // namespace ermoe
