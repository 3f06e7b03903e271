//! The file formats that are read and written.

use image::ImageFormat;

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 8 bits. Holds no metadata.
    Bmp,
    /// 8 bits, lossy, without transparency.
    Jpeg,
    /// 8 or 16 bits, whatever the source had; float sources become 16 bits.
    Png,
    /// PBM, PGM, PPM or PAM of 8 or 16 bits. Holds no metadata.
    Pnm,
    /// 8 bits. Holds no metadata.
    Qoi,
    /// 8, 16 or 32 bits, whatever the source had.
    Tiff,
    /// TIFF with 32-bit float samples, not clipped.
    Tiff32,
    /// 8 bits; written without loss.
    Webp,
}

/// What is known of a format: its name, what the image crate calls it, and the extensions of its files,
/// the usual one first.
struct Row(Format, &'static str, ImageFormat, &'static [&'static str]);

/// Every format that is read.
const TABLE: [Row; 7] = [
    Row(Format::Png, "PNG", ImageFormat::Png, &["png"]),
    Row(Format::Jpeg, "JPEG", ImageFormat::Jpeg, &["jpg", "jpeg", "jfif"]),
    Row(Format::Webp, "WebP", ImageFormat::WebP, &["webp"]),
    Row(Format::Tiff, "TIFF", ImageFormat::Tiff, &["tif", "tiff"]),
    Row(Format::Bmp, "BMP", ImageFormat::Bmp, &["bmp"]),
    Row(Format::Pnm, "PNM", ImageFormat::Pnm, &["pnm", "pbm", "pgm", "ppm", "pam"]),
    Row(Format::Qoi, "QOI", ImageFormat::Qoi, &["qoi"]),
];

impl Format {
    fn row(self) -> &'static Row {
        let read = if self == Format::Tiff32 { Format::Tiff } else { self };
        // Every other format has its row; the first stands for what cannot occur.
        TABLE.iter().find(|row| row.0 == read).unwrap_or(&TABLE[0])
    }

    /// Usual extension of its files.
    pub fn extension(self) -> &'static str {
        self.row().3[0]
    }

    /// As people write it.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The format that the image crate means.
    pub(super) fn of(format: ImageFormat) -> Option<Format> {
        TABLE.iter().find(|row| row.2 == format).map(|row| row.0)
    }
}

/// Extensions, in lower case, of files that are read when a folder is given.
pub fn extensions() -> impl Iterator<Item = &'static str> {
    TABLE.iter().flat_map(|row| row.3.iter().copied())
}

/// Names of the formats that are read, separated by commas.
pub fn names() -> String {
    TABLE.map(|row| row.1).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_named_after_a_format_is_one_of_that_format() {
        for Row(format, name, known, extensions) in &TABLE {
            assert_eq!((format.extension(), format.name()), (extensions[0], *name));
            for extension in *extensions {
                assert_eq!(ImageFormat::from_extension(extension), Some(*known), "{extension}");
            }
        }
        assert_eq!(Format::Tiff32.extension(), "tif");
    }
}
