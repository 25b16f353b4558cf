// Made by tests/golden/make_regression_golden.py: made-up subjects and what NumPy and SciPy say of them.
#pragma once

#include <vector>

namespace ermoe::golden {

// clang-format off
inline const std::vector<double> train_age = {73.74, 73.94, 54.04, 38.43, 22.67, 45.07, 46.78, 22.08, 22.32, 86.94, 63.36, 34.95, 48.58, 85.24, 80.04, 76.41, 45.68, 52.53, 65.01, 23.13, 56.78, 37.46, 78.82, 23.37, 65.18, 78.17, 34.46, 79.89, 78.31, 20.26, 67.11, 19.08, 53.23, 48.69, 32.82, 41.1, 73.82, 40.52, 29.13, 66.5};
inline const std::vector<double> train_predicted = {71.3, 69.62, 44.84, 42.99, 26.46, 46.68, 47.92, 22.5, 29.69, 74.83, 63.2, 34.74, 51.96, 70.27, 69.7, 65.13, 52.77, 54.04, 70.23, 33.76, 58.13, 44.58, 67.75, 31.08, 66.03, 68.13, 39.88, 70.84, 72.25, 27.72, 61.37, 29.33, 52.67, 45.62, 41.56, 38.58, 61.87, 38.23, 39.26, 60.11};
inline const std::vector<double> age = {67.48, 76.64, 46.28, 56.62, 51.61, 84.18, 40.57, 46.34, 19.06, 47.57, 61.94, 82.58, 81.81, 41.26, 86.24, 31.76, 74.98, 29.69, 46.55, 24.0, 77.35, 75.36, 28.51, 54.84, 36.55, 52.44, 56.62, 26.23, 77.78, 37.95};
inline const std::vector<double> predicted = {55.71, 72.76, 47.69, 50.61, 47.25, 66.26, 44.16, 54.03, 27.94, 50.95, 69.01, 63.89, 72.22, 42.48, 67.2, 31.99, 66.15, 39.4, 44.57, 33.43, 72.11, 68.26, 41.24, 55.91, 44.19, 62.55, 58.04, 35.33, 72.32, 36.65};
inline const std::vector<double> other = {55.02, 77.73, 51.84, 59.35, 48.3, 59.95, 54.9, 60.49, 23.65, 58.83, 70.17, 55.82, 71.12, 40.94, 76.15, 29.03, 65.88, 39.02, 43.68, 29.86, 74.21, 74.64, 45.36, 52.27, 39.44, 64.14, 55.51, 33.18, 64.92, 47.4};
inline constexpr double intercept = 14.364433800329913;
inline constexpr double slope = 0.7110731708189348;
inline const std::vector<double> corrected = {58.14530472588759, 82.12314652853037, 46.8665779659348, 50.97304706058095, 46.24779495167306, 72.98203381784545, 41.90225060151668, 55.782678671433644, 19.09165857577676, 51.451197571601405, 76.84942765698138, 69.64904349102648, 81.36373101102731, 39.53962454706273, 74.30397934831372, 24.78727495704967, 72.82733806428001, 35.20814344723049, 42.47884386480604, 26.812383003724488, 81.20903525746188, 75.79468388267158, 37.79578150687053, 58.426569732370204, 41.944440352489075, 67.76456794759297, 61.42204205141003, 29.48440056530931, 81.5043635142686, 31.34074960809456};
inline constexpr double plain_mae = 7.195000000000001;
inline constexpr double plain_mae_error = 0.9465601061119988;
inline constexpr double plain_low = 5.437999999999998;
inline constexpr double plain_high = 9.082674999999998;
inline constexpr double plain_rmse = 8.817671461332635;
inline constexpr double plain_r = 0.9353687331033533;
inline constexpr double plain_r2 = 0.8068238023751512;
inline constexpr double plain_gap = -0.8829999999999999;
inline constexpr double plain_gap_age_r = -0.8361723025732237;
inline constexpr double corrected_mae = 5.734819446184222;
inline constexpr double corrected_mae_error = 0.7846015089050765;
inline constexpr double corrected_low = 4.276273968180591;
inline constexpr double corrected_high = 7.296154716799583;
inline constexpr double corrected_rmse = 7.123239458690145;
inline constexpr double corrected_r = 0.9353687331033534;
inline constexpr double corrected_r2 = 0.8739331577071838;
inline constexpr double corrected_gap = 0.509403809360725;
inline constexpr double corrected_gap_age_r = -0.30472857104538326;
inline const std::vector<double> decade_starts = {10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0};
inline const std::vector<double> decade_maes = {8.880000000000003, 10.2425, 3.056666666666667, 3.2116666666666647, 4.5939999999999985, 9.420000000000005, 6.1019999999999985, 16.31};
inline const std::vector<double> decade_gaps = {8.880000000000003, 10.2425, 2.1899999999999977, 2.551666666666666, 0.4459999999999994, -2.349999999999998, -6.1019999999999985, -16.31};
inline constexpr double mean_predictor_mae = 17.09766666666667;
inline constexpr double difference = -1.0693333333333341;
inline constexpr double difference_error = 0.8738611548796882;
inline constexpr double better_share = 0.5666666666666667;
// clang-format on

}  // namespace ermoe::golden
