// ermoe-data: looks at data before anything is trained on it. What it finds out is in tools/inspection.h.
#include "core/enum_names.h"
#include "core/error.h"
#include "tools/align_volumes.h"
#include "tools/command_line.h"
#include "tools/config_check.h"
#include "tools/input_bench.h"
#include "tools/inspection.h"
#include "tools/made_photos.h"
#include "tools/main_guard.h"
#include "tools/phantom_set.h"
#include "tools/thread_waiting.h"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <optional>

namespace ermoe {
namespace {

void note(const std::string& text) { std::fprintf(stderr, "note: %s\n", text.c_str()); }

struct BenchFlags {
  InputBench bench;
  int64_t threads = 0;
  DeviceChoice device = DeviceChoice::auto_;
};

CLI::App* add_bench(CLI::App& app, BenchFlags& flags) {
  CLI::App* bench = app.add_subcommand("bench", "how many images a second reach a model: decoding, scaling, variation");
  bench->add_option("path", flags.bench.path, "a data set of photographs")->required();
  bench->add_option("--images", flags.bench.images, "read in each part of the measurement, at least")->check(CLI::Range(1, 100000000));
  bench->add_option("--size", flags.bench.size, "pixels a side that a model wants")->check(CLI::Range(1, 4096));
  bench->add_option("--batch", flags.bench.batch, "images a batch")->check(CLI::Range(1, 65536));
  bench->add_option("--threads", flags.threads, "0: the cores that this process may use")->check(CLI::Range(0, 1024));
  add_device_flag(*bench, flags.device);
  add_decoder_flag(*bench, flags.bench.decoder);
  return bench;
}

CLI::App* add_photos(CLI::App& app, MadePhotos& photos) {
  CLI::App* made = app.add_subcommand("photos", "makes up a data set of JPEG files to measure loading with");
  made->add_option("folder", photos.folder, "where to write it; must not exist")->required();
  made->add_option("--count", photos.count, "files")->check(CLI::Range(1, 100000000));
  made->add_option("--classes", photos.classes, "folders that they lie in")->check(CLI::Range(2, 100000));
  made->add_option("--width", photos.width, "pixels")->check(CLI::Range(1, 16384));
  made->add_option("--height", photos.height, "pixels")->check(CLI::Range(1, 16384));
  made->add_option("--quality", photos.quality, "of JPEG")->check(CLI::Range(1, 100));
  return made;
}

CLI::App* add_align(CLI::App& app, AlignVolumes& work) {
  CLI::App* align = app.add_subcommand("align", fmt::format("brings brain volumes to a template; {}", kAlignExpectations));
  align
      ->add_option("images", work.images,
                   "volumes (.nii, .nii.gz), folders or archives (.tar) of them, or what of an archive matches: 'a.tar:t1/*.nii.gz'")
      ->required();
  align->add_option("--to", work.fixed, "the template, a volume")->required();
  align->add_option("--out", work.out, "folder for NAME_aligned.nii.gz, .json (the matrix) and .png (to look at)")->required();
  align->add_option("--labels", work.labels, "region maps on the voxels of the volumes, in the same order; likewise");
  align->add_option("--table", work.table, "participants.tsv or its like, or 'a.tar:participants.tsv': copied into --out");
  align->add_option("--spacing", work.spacing, "mm between the voxels written; the template's own where not given")
      ->check(CLI::Range(0.2, 20.0));
  const auto model = [&work](const std::string& name) { work.options.model = *parse_enum<AlignModel>(name); };
  align->add_option_function<std::string>("--model", model, "rigid (6 degrees of freedom), similarity (7) or affine (12, as a rule)")
      ->check(CLI::IsMember(std::vector<std::string>{"rigid", "similarity", "affine"}));
  const auto measure = [&work](const std::string& name) { work.options.measure = *parse_enum<AlignMeasure>(name); };
  align
      ->add_option_function<std::string>("--measure", measure,
                                         "mutual_information (as a rule) or correlation, where intensities mean the same in both")
      ->check(CLI::IsMember(std::vector<std::string>{"mutual_information", "correlation"}));
  return align;
}

struct PhantomFlags {
  PhantomSet set;
  std::string ages = "20:80";
  std::optional<std::string> plant;
  int64_t threads = 0;
};

CLI::App* add_phantom(CLI::App& app, PhantomFlags& flags) {
  CLI::App* phantom =
      app.add_subcommand("phantom", "makes up brains of known age, as a BIDS folder: for want of data, and to know the truth");
  PhantomSettings& settings = flags.set.settings;
  phantom->add_option("folder", flags.set.folder, "where to write it; new, empty, or left by an interrupted run")->required();
  phantom->add_option("--subjects", flags.set.subjects, "how many")->check(CLI::Range(1, 9999));
  phantom->add_option("--seed", settings.seed, "of everything random");
  phantom->add_option("--spacing", settings.spacing, "mm between voxels")->check(CLI::Range(1.0, 8.0));
  phantom->add_option("--ages", flags.ages, "youngest and oldest; uniform between them");
  phantom->add_option("--plant", flags.plant,
                      "regions that age, and the slope of their volumes' logarithms a year: 'ventricles:0.015;hippocampus:-0.005', or "
                      "with AAL's numbers 'middle_frontal:7-8:-0.006'; as a rule ventricles, hippocampus, frontal and temporal");
  phantom
      ->add_option("--deviation", settings.deviation_years,
                   "years by which a region's own age differs from its owner's (standard deviation)")
      ->check(CLI::Range(0.1, 15.0));
  phantom->add_option("--shape", settings.shape, "strength of deformations that say nothing of age; 0: none")->check(CLI::Range(0.0, 1.5));
  phantom->add_option("--intensity", settings.intensity, "strength of gain, contrast, shading and noise; 0: none")
      ->check(CLI::Range(0.0, 3.0));
  phantom->add_option("--template", flags.set.template_path, "a brain without skull");
  phantom->add_option("--atlas", flags.set.atlas_path, "AAL's numbers on the template");
  phantom->add_option("--threads", flags.threads, "0: the cores that this process may use")->check(CLI::Range(0, 1024));
  return phantom;
}

void run_phantom(PhantomFlags& flags) {
  set_ages(flags.set.settings, flags.ages);
  if (flags.plant) set_plant(flags.set.settings, *flags.plant);
  const PhantomSetDone done = write_phantom_set(flags.set, resolve_threads(flags.threads), stderr);
  std::fputs(
      fmt::format("{} simulated subjects in {}{}; knowing the true volumes, the best predictor of age errs by {:.2f} years\n",
                  flags.set.subjects, flags.set.folder, done.kept > 0 ? fmt::format(" ({} were there)", done.kept) : "", done.best_error)
          .c_str(),
      stdout);
}

void run_bench(BenchFlags& flags) {
  flags.bench.threads = resolve_threads(flags.threads);
  Engine engine(flags.bench.threads, 0, flags.device);
  std::fputs(bench_input(engine, flags.bench).c_str(), stdout);
}

int run(int argc, char** argv) {
  CLI::App app{"Inspects data files and data sets, measures how fast they are read, aligns volumes.", "ermoe-data"};
  std::string path;
  bool decode = false;
  int64_t threads = 0;
  app.require_subcommand(1);
  CLI::App* inspect =
      app.add_subcommand("inspect", "says what a file or data set is; exit code 0 where it is sound, 2 where it is refused");
  inspect->add_option("path", path, "a file of any format read here, a data set, a checkpoint or a run folder")->required();
  inspect->add_flag("--decode", decode, "read every image or volume of a data set, not some of each part");
  StudyPaths study;
  inspect->add_option("--table", study.table, "of a study with volumes: as data.table");
  inspect->add_option("--volumes", study.volumes, "of a study: where a subject's volume lies, as in t1/{participant_id}.nii.gz");
  inspect->add_option("--threads", threads, "0: the cores that this process may use")->check(CLI::Range(0, 4096));
  BenchFlags bench_flags;
  MadePhotos photos;
  const CLI::App* bench = add_bench(app, bench_flags);
  AlignVolumes alignment;
  const CLI::App* made = add_photos(app, photos);
  const CLI::App* align = add_align(app, alignment);
  PhantomFlags phantom_flags;
  const CLI::App* phantom = add_phantom(app, phantom_flags);
  if (!parse_flags(app, argc, argv)) {
    std::fputs(app.help().c_str(), stdout);
    return 0;
  }
  if (bench->parsed()) {
    run_bench(bench_flags);
    return 0;
  }
  if (align->parsed()) {
    align_volumes(
        alignment, [](const std::string& line) { std::printf("%s\n", line.c_str()), std::fflush(stdout); }, note);
    return 0;
  }
  if (made->parsed()) {
    write_made_photos(photos, resolve_threads(0));
    std::fputs(fmt::format("{} photographs of {} classes in {}\n", photos.count, photos.classes, photos.folder).c_str(), stdout);
    return 0;
  }
  if (phantom->parsed()) {
    run_phantom(phantom_flags);
    return 0;
  }
  const Inspection found = inspect_path(path, decode ? Look::all : Look::sample, resolve_threads(threads), note, study);
  std::fputs(found.text.c_str(), stdout);
  check_input(found.fault.empty(), "{}: {}", path, found.fault);
  return 0;
}

}  // namespace
}  // namespace ermoe

int main(int argc, char** argv) {
  ermoe::settle_thread_waiting(argv);
  return ermoe::guard_main("ermoe-data", [&] { return ermoe::run(argc, argv); });
}
