//! Image files: decoded within bounds to float pixels, and encoded again as what they were.

use crate::error::{At, ErrorKind, Result};
use gradresnet_models::staged;
use image::codecs::{jpeg::JpegEncoder, png::PngEncoder, tiff::TiffEncoder};
use image::{ColorType, DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageReader, Limits};
use ndarray::{Array2, Array3, s};
use std::io::Cursor;
use std::path::Path;

/// Largest image that is read: 2²⁷ pixels, which take 1.5 GiB as float32.
pub const MAX_PIXELS: usize = 1 << 27;
/// Largest JPEG file accepted.
const MAX_JPEG_BYTES: u64 = 4 * MAX_PIXELS as u64;

/// Quality of the JPEG files written, of 100.
const JPEG_QUALITY: u8 = 95;

/// File formats that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 8 or 16 bits, whatever the source had; float sources become 16 bits.
    Png,
    /// 8 bits, quality 95, without transparency.
    Jpeg,
    /// 8, 16 or 32 bits, whatever the source had.
    Tiff,
    /// TIFF with 32-bit float samples, not clipped.
    Tiff32,
}

impl Format {
    /// Usual ending of the names of its files.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Png => "png",
            Format::Jpeg => "jpg",
            Format::Tiff | Format::Tiff32 => "tif",
        }
    }
}

/// Endings, in lower case, of the names of files that are read when a folder is given.
pub const EXTENSIONS: [&str; 5] = ["png", "jpg", "jpeg", "tif", "tiff"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Depth {
    Eight,
    Sixteen,
    Float,
}

/// A decoded image: its pixels, and what is needed to write a file like the one it came from. Its
/// transparency and colour profile are carried along unchanged; an orientation in the EXIF data has been
/// applied, and other EXIF data are dropped.
#[derive(Clone, Debug)]
pub struct Picture {
    /// RGB, `[3,H,W]`, in image units; a grey image has three equal channels. Integer samples of all
    /// depths are scaled to [0, 1], float samples are taken as they are.
    pub pixels: Array3<f32>,
    /// `[H,W]`, 0 (transparent) to 1.
    alpha: Option<Array2<f32>>,
    grey: bool,
    depth: Depth,
    profile: Option<Vec<u8>>,
    format: Format,
}

impl Picture {
    /// An 8-bit colour picture with these pixels `[3,H,W]`, to be kept as PNG.
    pub fn from_pixels(pixels: Array3<f32>) -> Picture {
        Picture { pixels, alpha: None, grey: false, depth: Depth::Eight, profile: None, format: Format::Png }
    }

    /// Reads a PNG, JPEG or TIFF file, told by its content.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], [`ErrorKind::Image`], [`ErrorKind::TooLarge`] (before memory is taken),
    /// [`ErrorKind::NotFinite`].
    pub fn read(path: &Path) -> Result<Picture> {
        Picture::decode(path).at(path)
    }

    fn decode(path: &Path) -> Result<Picture> {
        if path.is_dir() {
            return Err(std::io::Error::from(std::io::ErrorKind::IsADirectory).into());
        }
        let mut reader = ImageReader::open(path)?.with_guessed_format()?;
        let format = match reader.format() {
            Some(image::ImageFormat::Jpeg) => Format::Jpeg,
            Some(image::ImageFormat::Tiff) => Format::Tiff,
            _ => Format::Png,
        };
        if format == Format::Jpeg && !ends_as_jpeg(&staged::read_bounded(path, MAX_JPEG_BYTES)?) {
            return Err(ErrorKind::Input("the JPEG data end before the image does".into()).into());
        }
        // Twice the pixels as float RGBA; the number of pixels is checked below, before they are read.
        let mut limits = Limits::default();
        limits.max_alloc = Some(32 * MAX_PIXELS as u64);
        reader.limits(limits);
        let mut decoder = reader.into_decoder()?;
        let (width, height) = decoder.dimensions();
        let (width, height) = (width as usize, height as usize);
        if height == 0 || width == 0 {
            return Err(ErrorKind::Input("the image is empty".into()).into());
        }
        if height.saturating_mul(width) > MAX_PIXELS {
            let cure = "; cut it into parts";
            return Err(ErrorKind::TooLarge { height, width, limit: MAX_PIXELS, cure }.into());
        }
        let profile = decoder.icc_profile()?;
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        let picture = Picture::from_image(&image, profile, format);
        let mut samples = picture.pixels.iter().chain(picture.alpha.iter().flatten());
        match samples.all(|v| v.is_finite()) {
            true => Ok(picture),
            false => Err(ErrorKind::NotFinite("the image").into()),
        }
    }

    fn from_image(image: &DynamicImage, profile: Option<Vec<u8>>, format: Format) -> Picture {
        let (height, width) = (image.height() as usize, image.width() as usize);
        let color = image.color();
        let (channels, grey) = (usize::from(color.channel_count()), !color.has_color());
        let bytes = image.as_bytes();
        let depth = match usize::from(color.bytes_per_pixel()) / channels {
            1 => Depth::Eight,
            2 => Depth::Sixteen,
            _ => Depth::Float,
        };
        let sample = |y: usize, x: usize, c: usize| {
            let i = (y * width + x) * channels + c;
            match depth {
                Depth::Eight => f32::from(bytes[i]) / 255.0,
                Depth::Sixteen => f32::from(u16::from_ne_bytes([bytes[2 * i], bytes[2 * i + 1]])) / 65535.0,
                Depth::Float => {
                    f32::from_ne_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
                }
            }
        };
        Picture {
            pixels: Array3::from_shape_fn((3, height, width), |(c, y, x)| {
                sample(y, x, if grey { 0 } else { c })
            }),
            alpha: color
                .has_alpha()
                .then(|| Array2::from_shape_fn((height, width), |(y, x)| sample(y, x, channels - 1))),
            grey,
            depth,
            profile,
            format,
        }
    }

    /// Whether the file had one colour channel.
    pub fn is_grey(&self) -> bool {
        self.grey
    }

    /// Rows and columns.
    pub fn size(&self) -> (usize, usize) {
        let (_, height, width) = self.pixels.dim();
        (height, width)
    }

    /// Cuts out the central square and scales it to `side`×`side` pixels, each the average of what it
    /// covers (a triangle filter).
    pub fn resized(&self, side: usize) -> Array3<f32> {
        let (height, width) = self.size();
        let square = height.min(width);
        let (top, left) = ((height - square) / 2, (width - square) / 2);
        let cut = self.pixels.slice(s![.., top..top + square, left..left + square]);
        if square == side {
            return cut.to_owned();
        }
        let source = image::ImageBuffer::from_fn(square as u32, square as u32, |x, y| {
            let (y, x) = (y as usize, x as usize);
            image::Rgb([cut[[0, y, x]], cut[[1, y, x]], cut[[2, y, x]]])
        });
        let filter = image::imageops::FilterType::Triangle;
        let scaled = image::imageops::resize(&source, side as u32, side as u32, filter);
        Array3::from_shape_fn((3, side, side), |(c, y, x)| scaled[(x as u32, y as u32)].0[c])
    }

    /// Writes the file beside its target and renames it; as `format`, or as what it was read from.
    /// Integer samples are rounded and clipped to [0, 1].
    ///
    /// # Errors
    /// [`ErrorKind::Input`] for transparency in a JPEG file; [`ErrorKind::Image`]; [`ErrorKind::Io`].
    pub fn write(&self, path: &Path, format: Option<Format>) -> Result<()> {
        let bytes = self.encode(format.unwrap_or(self.format)).at(path)?;
        Ok(staged::write_file(path, &bytes)?)
    }

    fn encode(&self, format: Format) -> Result<Vec<u8>> {
        let alpha = self.alpha.is_some();
        if format == Format::Jpeg && alpha {
            let reason = "the image has transparency, which JPEG lacks; use --format png";
            return Err(ErrorKind::Input(reason.into()).into());
        }
        let depth = match format {
            Format::Png if self.depth == Depth::Float => Depth::Sixteen,
            Format::Png | Format::Tiff => self.depth,
            Format::Jpeg => Depth::Eight,
            Format::Tiff32 => Depth::Float,
        };
        // What the TIFF encoder lacks is written in colour.
        let tiff = matches!(format, Format::Tiff | Format::Tiff32);
        let grey = self.grey && !(tiff && (alpha || depth == Depth::Float));
        let color = match (depth, grey, alpha) {
            (Depth::Eight, true, false) => ColorType::L8,
            (Depth::Eight, true, true) => ColorType::La8,
            (Depth::Eight, false, false) => ColorType::Rgb8,
            (Depth::Eight, false, true) => ColorType::Rgba8,
            (Depth::Sixteen, true, false) => ColorType::L16,
            (Depth::Sixteen, true, true) => ColorType::La16,
            (Depth::Sixteen, false, false) => ColorType::Rgb16,
            (Depth::Sixteen, false, true) => ColorType::Rgba16,
            (Depth::Float, _, false) => ColorType::Rgb32F,
            (Depth::Float, _, true) => ColorType::Rgba32F,
        };
        let samples = self.samples(depth, grey);
        let (height, width) = self.size();
        let (height, width) = (height as u32, width as u32);
        let mut bytes = Vec::new();
        let mut target = Cursor::new(&mut bytes);
        match format {
            Format::Png => self.write_with(PngEncoder::new(&mut target), &samples, width, height, color),
            Format::Jpeg => {
                let encoder = JpegEncoder::new_with_quality(&mut target, JPEG_QUALITY);
                self.write_with(encoder, &samples, width, height, color)
            }
            Format::Tiff | Format::Tiff32 => {
                self.write_with(TiffEncoder::new(&mut target), &samples, width, height, color)
            }
        }?;
        Ok(bytes)
    }

    fn write_with(
        &self,
        mut encoder: impl ImageEncoder,
        samples: &[u8],
        width: u32,
        height: u32,
        color: ColorType,
    ) -> Result<()> {
        // The header names the colour space; a profile of another one (of CMYK, of grey that is written
        // in colour) would make nonsense of the samples.
        let space: &[u8] = if color.has_color() { b"RGB " } else { b"GRAY" };
        if let Some(profile) = self.profile.as_ref().filter(|profile| profile.get(16..20) == Some(space)) {
            // Every encoder here can; one that could not would lose the profile and nothing else.
            let _ = encoder.set_icc_profile(profile.clone());
        }
        Ok(encoder.write_image(samples, width, height, ExtendedColorType::from(color))?)
    }

    /// Interleaved samples in the machine's byte order.
    fn samples(&self, depth: Depth, grey: bool) -> Vec<u8> {
        let (height, width) = self.size();
        let mut bytes = Vec::new();
        let mut put = |value: f32| match depth {
            Depth::Eight => bytes.push((value * 255.0).round() as u8),
            Depth::Sixteen => bytes.extend(((value * 65535.0).round() as u16).to_ne_bytes()),
            Depth::Float => bytes.extend(value.to_ne_bytes()),
        };
        for y in 0..height {
            for x in 0..width {
                let [r, g, b] = [0, 1, 2].map(|c| self.pixels[[c, y, x]]);
                if grey {
                    put((r + g + b) / 3.0);
                } else {
                    [r, g, b].into_iter().for_each(&mut put);
                }
                if let Some(alpha) = &self.alpha {
                    put(alpha[[y, x]]);
                }
            }
        }
        bytes
    }
}

/// Whether the scan data of a JPEG file go on to its end marker. The decoder fills what is missing with
/// grey and says nothing.
fn ends_as_jpeg(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xDA;
    const END: [u8; 2] = [0xFF, 0xD9];
    let mut at = 2;
    while let Some(&[0xFF, marker]) = bytes.get(at..at + 2).and_then(|two| two.first_chunk()) {
        match marker {
            START_OF_SCAN => return bytes[at..].windows(2).any(|two| two == END),
            0xFF => at += 1,
            // Markers without a length.
            0x01 | 0xD0..=0xD8 => at += 2,
            _ => {
                let Some(length) = bytes.get(at + 2..at + 4) else { return false };
                at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(image: DynamicImage, format: Option<Format>) -> DynamicImage {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("a.png"), dir.path().join("b"));
        image.save(&source).unwrap();
        Picture::read(&source).unwrap().write(&target, format).unwrap();
        ImageReader::open(target).unwrap().with_guessed_format().unwrap().decode().unwrap()
    }

    #[test]
    fn every_kind_of_png_comes_back_as_it_was() {
        let noise = |n: usize| (0..n).map(|i| (i * 7919 % 65521) as u16).collect::<Vec<_>>();
        let wide = DynamicImage::ImageRgba16(image::ImageBuffer::from_raw(5, 3, noise(60)).unwrap());
        let images = [
            DynamicImage::ImageLuma8(wide.to_luma8()),
            DynamicImage::ImageLumaA8(wide.to_luma_alpha8()),
            DynamicImage::ImageRgb8(wide.to_rgb8()),
            DynamicImage::ImageRgba8(wide.to_rgba8()),
            DynamicImage::ImageLuma16(wide.to_luma16()),
            DynamicImage::ImageLumaA16(wide.to_luma_alpha16()),
            DynamicImage::ImageRgb16(wide.to_rgb16()),
            wide,
        ];
        for image in images {
            assert_eq!(round_trip(image.clone(), None), image);
        }
    }

    #[test]
    fn float_tiff_is_not_clipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tif");
        let mut pixels = Array3::from_elem((3, 4, 6), 0.5);
        pixels[[0, 0, 0]] = -0.25;
        pixels[[2, 3, 5]] = 1.75;
        Picture::from_pixels(pixels.clone()).write(&path, Some(Format::Tiff32)).unwrap();
        let read = Picture::read(&path).unwrap();
        assert_eq!(read.pixels, pixels);
        // Kept, it stays float.
        let again = dir.path().join("b.tif");
        read.write(&again, None).unwrap();
        assert_eq!(Picture::read(&again).unwrap().pixels, pixels);
    }

    #[test]
    fn transparency_is_not_lost_silently() {
        let image = DynamicImage::new_rgba8(3, 3);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        image.save(&path).unwrap();
        let target = dir.path().join("a.jpg");
        let picture = Picture::read(&path).unwrap();
        assert!(picture.write(&target, Some(Format::Jpeg)).is_err());
        assert!(!target.exists());
        picture.write(&target, Some(Format::Tiff)).unwrap();
    }

    #[test]
    fn an_image_is_resized_from_its_central_square() {
        let picture = Picture::from_pixels(Array3::from_shape_fn((3, 8, 16), |(c, _, x)| {
            if (4..12).contains(&x) { c as f32 / 2.0 } else { 9.0 }
        }));
        let small = picture.resized(4);
        assert!(small.indexed_iter().all(|((c, _, _), v)| (v - c as f32 / 2.0).abs() < 1e-6));
    }

    #[test]
    fn damaged_files_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.png", "a.jpg", "a.tif"] {
            let path = dir.path().join(name);
            DynamicImage::new_rgb8(64, 64).save(&path).unwrap();
            assert!(Picture::read(&path).is_ok());
            let bytes = std::fs::read(&path).unwrap();
            // The last bytes of a PNG are a checksum over nothing; those of a JPEG say that it is whole.
            let last = if name == "a.jpg" { bytes.len() - 2 } else { bytes.len() / 2 };
            for cut in [0, 4, 40, bytes.len() / 3, last] {
                std::fs::write(&path, &bytes[..cut]).unwrap();
                assert!(Picture::read(&path).is_err(), "{cut} bytes of {name}");
            }
        }
        assert!(Picture::read(&dir.path().join("none.png")).is_err());
        assert!(Picture::read(dir.path()).is_err());
    }
}
