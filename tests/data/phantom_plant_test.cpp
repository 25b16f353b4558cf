// Which regions of made-up subjects are planted: what a choice says, what of it is refused, and that it is what comes out.
#include "core/error.h"
#include "data/phantom.h"
#include "tests/data/phantom_volumes.h"
#include "tests/made_brain.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

namespace ermoe {
namespace {

using testing::made_brain;
using testing::MadeBrain;

std::vector<std::string> names_of(const std::vector<PhantomRegion>& regions) {
  std::vector<std::string> names;
  for (const PhantomRegion& region : regions) names.push_back(region.name);
  return names;
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const InputError& e) {
    return e.what();
  }
  return "nothing was refused";
}

TEST(PhantomPlant, TheUsualChoiceGivesWhatItGaveBeforeThereWasOne) {
  // Subject 7 of seed 1: voxels of each label and the sum of their intensities, as they were when the regions were fixed.
  constexpr std::array<std::array<double, 2>, 11> before{{{62829, 0},
                                                          {553, 38352},
                                                          {314, 43694},
                                                          {3409, 459810},
                                                          {3921, 503874},
                                                          {4501, 607686},
                                                          {2390, 299744},
                                                          {133, 19422},
                                                          {201, 30362},
                                                          {2060, 243921},
                                                          {9602, 1666643}}};
  constexpr std::array<double, 4> effects{0.4371020373683519, -0.11855371561217055, -0.055795754466647314, -0.09573771566610861};
  const MadeBrain made = made_brain(4);
  PhantomSettings settings;
  settings.spacing = 4;
  const PhantomPerson person = draw_person(settings, 7);
  EXPECT_EQ(person.age, 73.19);
  ASSERT_EQ(person.effects.size(), effects.size());
  for (size_t r = 0; r < effects.size(); ++r) EXPECT_NEAR(person.effects[r], effects[r], 1e-6);
  const PhantomSubject subject = Phantom(made.brain, made.atlas, settings).make(7);
  std::array<std::array<double, 2>, 11> now{};
  for (size_t p = 0; p < subject.brain.values.size(); ++p) {
    std::array<double, 2>& label = now.at(static_cast<size_t>(subject.regions.values[p]));
    label[0] += 1;
    label[1] += static_cast<double>(subject.brain.values[p]);
  }
  for (size_t l = 0; l < now.size(); ++l)  // another processor may round a voxel at a border to the other side
    for (const size_t what : {0u, 1u}) EXPECT_NEAR(now[l][what], before[l][what], 1e-3 * before[l][what] + (what == 0 ? 1 : 150)) << l;
}

TEST(PhantomPlant, UsualChoiceIsTheWholeMapsInItsOrder) {
  EXPECT_EQ(names_of(phantom_regions(usual_plant())),
            (std::vector<std::string>{"ventricles", "hippocampus", "frontal", "temporal", "parietal", "occipital", "limbic_insula",
                                      "deep_grey", "cerebellum", "white_matter_other"}));
  for (const PhantomRegion& region : usual_plant()) EXPECT_TRUE(is_of_the_map(region));
}

TEST(PhantomPlant, ReadsNamesAndNumbers) {
  const std::vector<PhantomRegion> plant = parse_plant("part:7-8,13:-0.006;ventricles:+0.015;cerebellum:-0.03");
  EXPECT_EQ(names_of(plant), (std::vector<std::string>{"part", "ventricles", "cerebellum"}));
  EXPECT_EQ(plant[0].aal, (std::vector<int>{7, 8, 13}));
  EXPECT_EQ(plant[0].slope, -0.006);
  EXPECT_FALSE(is_of_the_map(plant[0]));
  EXPECT_TRUE(plant[1].aal.empty());
  EXPECT_EQ(plant[1].slope, 0.015);
  EXPECT_EQ(plant[2].aal.size(), 26u);
}

TEST(PhantomPlant, WhatIsLeftKeepsItsNameUnplanted) {
  const auto all = phantom_regions(parse_plant("middle_frontal:7-8:-0.006;hippocampus:37-38:-0.005"));
  EXPECT_EQ(names_of(all), (std::vector<std::string>{"middle_frontal", "hippocampus", "ventricles", "frontal", "temporal", "parietal",
                                                     "occipital", "limbic_insula", "deep_grey", "cerebellum", "white_matter_other"}));
  EXPECT_EQ(all[3].aal.size(), 26u);
  EXPECT_EQ(std::count(all[3].aal.begin(), all[3].aal.end(), 7), 0);
  for (size_t r = 2; r < all.size(); ++r) EXPECT_FALSE(all[r].planted()) << all[r].name;
}

TEST(PhantomPlant, SaysWhatIsWrong) {
  const auto refused = [](const std::string& text, const std::string& why) {
    const std::string message = message_of([&] { parse_plant(text); });
    EXPECT_NE(message.find(why), std::string::npos) << "'" << text << "': " << message;
  };
  refused("", "\"\" is neither NAME:SLOPE nor NAME:AAL-NUMBERS:SLOPE");
  refused("ventricles:0.015;", "\"\" is neither");
  refused("a:1:2:3", "\"a:1:2:3\" is neither");
  refused("ventricle:0.015", "ventricle: no region of the map has that name; they are ventricles, hippocampus");
  refused("white_matter_other:0.01", "white_matter_other: cannot be planted");
  refused("white matter:1:0.01", "\"white matter\" is no name");
  refused("ventricles:0.031", "ventricles: \"0.031\" is no slope");
  for (const char* slope : {"0", "-0.0301", "0.0009", "nan", "inf", "", "0.01x", "1e9", "++0.01", "+"})
    refused(std::string("ventricles:") + slope, "is no slope, which is from 0.001 to 0.03 a year");
  for (const char* numbers : {"0", "117", "8-7", "7-", "-7", "7,", ",7", "7 8", "7-8-9", "1-99999999999"})
    refused(std::string("x:") + numbers + ":0.01", "are no numbers of AAL, which are 1 to 116");
  refused("x::0.01", "x: no numbers of AAL stand between its colons");
  refused("x:7-8,8:0.01", "x: AAL's number 8 stands there twice");
  refused("x:7-8:0.01;y:8-9:0.01", "x and y overlap: both have AAL's number 8");
  refused("frontal:-0.003;x:7-8:0.01", "frontal and x overlap: both have AAL's number 7");
  refused("ventricles:0.01;ventricles:0.02", "ventricles: is planted twice");
  refused("x:7:0.01;x:8:0.01", "x: is planted twice");
  refused("frontal:7-8:0.01", "frontal: what is left of the map keeps that name");
  refused("ventricles:7-8:0.01", "ventricles: what is left of the map keeps that name");
  refused("background:7-8:0.01", "background: ");
  refused("a:1:0.01;b:2:0.01;c:3:0.01;d:4:0.01;e:5:0.01;f:6:0.01;g:7:0.01;h:8:0.01;i:9:0.01", "9 regions are too many, 8 can be planted");
  EXPECT_NO_THROW(parse_plant("a:1:0.01;b:2:0.01;c:3:0.01;d:4:0.01;e:5:0.01;f:6:0.01;g:7:0.01;h:8:0.01"));
}

TEST(PhantomPlant, WantsRegionsThatAreThereAndNotTooSmall) {
  MadeBrain made = made_brain(4);
  const auto refused = [&](const char* text) { return message_of([&] { phantom_region_map(made.brain, made.atlas, parse_plant(text)); }); };
  EXPECT_EQ(refused("x:7-8:0.01"), "x: AAL's number 8 has no voxels in the template's brain");
  EXPECT_EQ(refused("x:8:0.01"), "the template with its atlas has no x: nothing to plant an effect of age in");
  EXPECT_EQ(refused("x:37:0.01"), "nothing was refused");
  int64_t kept = 0;
  for (float& v : made.atlas.values)
    if (v == 37 && ++kept > 15) v = 0;
  EXPECT_EQ(refused("x:37:0.01"), "x: has 0.96 ml in the template, and 1 ml is the least that can be planted");
}

TEST(PhantomPlant, VentriclesAreTheSameWhateverIsPlanted) {
  MadeBrain made = made_brain(4);
  const Volume usual = phantom_region_map(made.brain, made.atlas);
  // The atlas' deep grey matter reaches into the ventricles, and is planted.
  for (size_t p = 0; p < usual.values.size(); ++p)
    if (usual.values[p] == 1 && p % 2 == 0) made.atlas.values[p] = 71;
  const std::vector<PhantomRegion> plant = parse_plant("x:71:-0.01");
  const Volume other = phantom_region_map(made.brain, made.atlas, plant);
  ASSERT_EQ(phantom_regions(plant)[1].name, "ventricles");
  for (size_t p = 0; p < usual.values.size(); ++p) {
    ASSERT_EQ(usual.values[p] == 1, other.values[p] == 2);
    ASSERT_EQ(usual.values[p] == 8, other.values[p] == 1) << "made brains' deep grey matter is all of that number";
  }
}

TEST(PhantomPlant, ChosenSmallRegionAgesAsAskedAndNothingElse) {
  const MadeBrain made = made_brain(3);
  // One hippocampus is planted, the other is left of the map's.
  const std::vector<PhantomRegion> plant = parse_plant("left:37:-0.01");
  const std::vector<PhantomRegion> regions = phantom_regions(plant);
  const Volume map = phantom_region_map(made.brain, made.atlas, plant);
  const Lattice lattice{map.grid.size, 3};
  const PhantomGrowth plan = plan_growth(plant, lattice, map.values, lattice);
  ASSERT_EQ(plan.fields.size(), 1u);
  std::vector<std::vector<double>> volumes;
  for (const double years : {-30, 30}) {
    VectorField velocity(lattice);
    velocity.add(plan.fields[0], plant[0].slope * years);
    const VectorField backward = flow(velocity, -1);
    EXPECT_GT(least_jacobian(backward), 0);
    volumes.push_back(testing::sampled_log_volumes(lattice, map.values, regions.size(), backward));
  }
  for (size_t r = 0; r + 1 < regions.size(); ++r)
    EXPECT_NEAR((volumes[1][r] - volumes[0][r]) / 60, regions[r].slope, r == 0 ? 0.05 * 0.01 : 0.0002) << regions[r].name;
}

TEST(PhantomPlant, SubjectsAndTheBestPredictorFollowTheChoice) {
  const MadeBrain made = made_brain(4);
  PhantomSettings settings;
  settings.spacing = 4;
  settings.deviation_years = 6;
  settings.plant = parse_plant("left:37:-0.01;ventricles:0.01");
  EXPECT_NEAR(age_model(settings).error_years, 6 / std::sqrt(2), 1e-12);
  const Phantom phantom(made.brain, made.atlas, settings);
  EXPECT_EQ(names_of(phantom.regions()), names_of(phantom_regions(settings.plant)));
  for (const int64_t index : {0, 1, 2}) {
    const PhantomPerson person = draw_person(settings, index);
    const PhantomSubject subject = phantom.make(index);
    ASSERT_EQ(subject.effects.size(), 2u);
    EXPECT_NEAR(age_seen(settings, person), 50 + 50 * (person.effects[1] - person.effects[0]), 1e-6);
    for (size_t r = 0; r < 2; ++r) {
      EXPECT_NEAR(subject.effects[r], person.effects[r], 0.2 * 0.01);
      const auto voxels = std::count(subject.regions.values.begin(), subject.regions.values.end(), static_cast<float>(r + 1));
      EXPECT_NEAR(std::log(0.064 * static_cast<double>(voxels) / phantom.template_ml()[r]), person.effects[r], 0.12) << index;
    }
  }
}

TEST(PhantomPlant, NamesTheRegionThatNoDeformationReaches) {
  const MadeBrain made = made_brain(4);
  PhantomSettings settings;
  settings.plant = parse_plant("ventricles:0.001;frontal:0.03");
  settings.deviation_years = 0.1;
  const Phantom phantom(made.brain, made.atlas, settings);
  PhantomPerson old;
  old.effects = {0.03, 2.5};
  const std::string message = message_of([&] { phantom.make(3, old); });
  EXPECT_EQ(message.rfind("frontal: subject 4 would have 12.18 times the template's volume, but its deformation ", 0), 0u) << message;
  EXPECT_NE(message.find("plant less"), std::string::npos) << message;
}

}  // namespace
}  // namespace ermoe
