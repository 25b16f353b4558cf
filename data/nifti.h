// Volumes in NIfTI files, version 1 and 2, plain or gzip-compressed (.nii, .nii.gz) or as a header with its data beside it (.hdr, .img).
// Files are not trusted: what is cut off, followed by something else within its gzip data, or impossible is refused in one sentence
// that begins with the file's name, and no memory is taken for voxels that the file cannot hold.
// Built on data/gzip.h and data/volume.h; read next: data/volume_grid.h, data/intensity.h.
#pragma once

#include "data/volume.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ermoe {

/// How a voxel is stored. Complex numbers, colours, bits and 128-bit floats are not read.
enum class VoxelType { u8, i8, u16, i16, u32, i32, u64, i64, f32, f64 };
size_t voxel_bytes(VoxelType type);

enum class ByteOrder { little, big };

/// Which of the header's ways of placing voxels was used: the first that has a code, as nibabel does it. Without any, pixdim alone says
/// the spacing, x runs to the left and the middle of the volume is the origin.
enum class AffineSource { sform, qform, pixdim };

/// What the header of a sound NIfTI file says.
struct NiftiHeader {
  int version = 1;
  ByteOrder order = ByteOrder::little;
  VoxelType type = VoxelType::f32;
  Grid grid;           // in mm, whatever unit the file is in; a file without a unit is taken as mm
  int64_t frames = 1;  // product of the axes beyond the third
  AffineSource affine_source = AffineSource::pixdim;
  double slope = 1, intercept = 0;  // an intensity is slope * stored + intercept
  bool pair = false;                // the voxels are in an .img file
  uint64_t data_offset = 0;         // bytes before the first voxel, in the file that holds the voxels

  /// Whether intensities differ from what is stored.
  bool scaled() const { return slope != 1 || intercept != 0; }
};

/// True where the bytes begin as a NIfTI header does, in either version and byte order (first 348 bytes; 12 do for version 2).
bool is_nifti(std::string_view head);
/// True for names that end in .nii, .nii.gz, .hdr, .hdr.gz, .img or .img.gz.
bool is_volume_name(std::string_view path);

/// Parses a header from the first bytes of a file (540 where it has so many). Throws `InputError` that begins with `name`.
NiftiHeader parse_nifti_header(std::string_view head, const std::string& name);

/// The header alone; the voxels are not looked at. Throws `InputError`. Of a pair, either file's path does.
NiftiHeader read_nifti_header(const std::string& path);

/// A volume with its intensities scaled by slope and intercept, as float32. Voxels that are not finite stay: see `require_sound`. Throws
/// `InputError` where the file is damaged, holds more than one frame, or more than 128 Mi voxels.
Volume read_nifti(const std::string& path);
/// The same from a file's bytes, which messages call `name`. Not for pairs.
Volume read_nifti(std::string_view bytes, const std::string& name);

/// Refuses a volume that nothing can be learned from, one with voxels that are not finite or with one value alone, by an `InputError`
/// that begins with `name`.
void require_sound(const Volume& volume, const std::string& name);

/// NIfTI's names of the spaces that world positions may be in.
enum class NiftiSpace { scanner = 1, aligned, talairach, mni };

struct NiftiWriting {
  VoxelType type = VoxelType::f32;  // or u8 or i16, for whole numbers that fit
  NiftiSpace space = NiftiSpace::aligned;
  std::string description = {};  // up to 79 bytes
};

/// The bytes of a NIfTI-1 file. Throws `Error` where a value does not fit its type or an axis is longer than 32,767.
std::string encode_nifti(const Volume& volume, const NiftiWriting& how = {});

/// Writes it at `path`, atomically, gzip-compressed where the name ends in .gz. The affine stands in the sform, and in the qform too where
/// it is one of rotation and spacing alone. Throws as `encode_nifti`, and `InputError` where the file cannot be written.
void write_nifti(const std::string& path, const Volume& volume, const NiftiWriting& how = {});

}  // namespace ermoe
