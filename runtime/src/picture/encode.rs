//! Encodes image files.

use super::format::Format;
use super::metadata::Metadata;
use super::samples::{Depth, Samples};
use super::{Picture, tiff_file};
use crate::error::{ErrorKind, Result};
use image::codecs::bmp::BmpEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::qoi::QoiEncoder;
use image::{ExtendedColorType, ImageEncoder};
use std::borrow::Cow;
use std::io::{Seek, Write};

/// How a picture is written.
#[derive(Clone, Copy, Debug)]
pub struct Encoding {
    /// `None`: that of the file it was read from.
    pub format: Option<Format>,
    /// 1 (smallest files) to 100 (best), for JPEG.
    pub jpeg_quality: u8,
    /// Whether the colour profile, EXIF and XMP are written too, as far as the format holds them.
    pub metadata: bool,
}

impl Default for Encoding {
    fn default() -> Self {
        Encoding { format: None, jpeg_quality: 95, metadata: true }
    }
}

/// Largest segment of a JPEG file, without its length.
const JPEG_SEGMENT: usize = 65_533;
const JPEG_EXIF: &[u8] = b"Exif\0\0";
const JPEG_XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
const PNG_XMP: &str = "XML:com.adobe.xmp";

impl Picture {
    /// Whether the format that it would be written in can hold it.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] for transparency in JPEG, and for sides beyond those of JPEG (65,535) or WebP (16,384).
    pub fn ensure_fits(&self, encoding: &Encoding) -> Result<()> {
        let format = encoding.format.unwrap_or(self.format);
        let longest = match format {
            Format::Jpeg => 65_535,
            Format::Webp => 16_384,
            _ => usize::MAX,
        };
        let name = format.name();
        let reason = if format == Format::Jpeg && self.has_alpha() {
            format!("the image has transparency, which {name} lacks")
        } else if self.height.max(self.width) > longest {
            format!("{}×{} pixels, and {name} holds sides of {longest} at most", self.width, self.height)
        } else {
            return Ok(());
        };
        Err(ErrorKind::Input(format!("{reason}; use --format png")).into())
    }

    pub(super) fn encode(&self, target: impl Write + Seek, encoding: &Encoding) -> Result<()> {
        self.ensure_fits(encoding)?;
        let format = encoding.format.unwrap_or(self.format);
        let depth = match (format, self.depth) {
            (Format::Png | Format::Pnm, Depth::Float) => Depth::Sixteen,
            (Format::Png | Format::Pnm | Format::Tiff, depth) => depth,
            (Format::Tiff32, _) => Depth::Float,
            (Format::Jpeg | Format::Webp | Format::Bmp | Format::Qoi, _) => Depth::Eight,
        };
        let samples = self.samples.at(depth);
        let none = Metadata::default();
        let file = File {
            samples: &samples,
            size: (self.height, self.width),
            channels: self.channels,
            metadata: if encoding.metadata { &self.metadata } else { &none },
        };
        match format {
            Format::Png => file.png(target),
            Format::Jpeg => file.jpeg(target, encoding.jpeg_quality),
            Format::Webp => file.webp(target),
            Format::Tiff | Format::Tiff32 => tiff_file::write(target, file.samples, file.size, file.metadata),
            Format::Bmp => file.with(BmpEncoder::new(&mut { target })),
            Format::Pnm => file.pnm(target),
            Format::Qoi => file.with(QoiEncoder::new(target)),
        }
    }
}

struct File<'a> {
    samples: &'a Samples,
    /// Height and width.
    size: (usize, usize),
    channels: usize,
    metadata: &'a Metadata,
}

impl File<'_> {
    fn with(&self, encoder: impl ImageEncoder) -> Result<()> {
        let (height, width) = (self.size.0 as u32, self.size.1 as u32);
        let sixteen = self.samples.depth() == Depth::Sixteen;
        let color = match (self.channels, sixteen) {
            (1, false) => ExtendedColorType::L8,
            (1, true) => ExtendedColorType::L16,
            (2, false) => ExtendedColorType::La8,
            (2, true) => ExtendedColorType::La16,
            (3, false) => ExtendedColorType::Rgb8,
            (3, true) => ExtendedColorType::Rgb16,
            (_, false) => ExtendedColorType::Rgba8,
            (_, true) => ExtendedColorType::Rgba16,
        };
        Ok(encoder.write_image(self.samples.bytes(), width, height, color)?)
    }

    fn png(&self, target: impl Write) -> Result<()> {
        let mut info = png::Info::with_size(self.size.1 as u32, self.size.0 as u32);
        info.color_type = match self.channels {
            1 => png::ColorType::Grayscale,
            2 => png::ColorType::GrayscaleAlpha,
            3 => png::ColorType::Rgb,
            _ => png::ColorType::Rgba,
        };
        let sixteen = self.samples.depth() == Depth::Sixteen;
        info.bit_depth = if sixteen { png::BitDepth::Sixteen } else { png::BitDepth::Eight };
        info.icc_profile = self.metadata.profile_for(self.channels > 2).map(Cow::from);
        info.exif_metadata = self.metadata.exif.as_ref().map(Cow::from);
        let mut encoder = png::Encoder::with_info(target, info).map_err(unwritable)?;
        encoder.set_compression(png::Compression::Fast);
        if let Some(xmp) = self.metadata.xmp.as_deref().and_then(|xmp| std::str::from_utf8(xmp).ok()) {
            encoder.add_itxt_chunk(PNG_XMP.into(), xmp.into()).map_err(unwritable)?;
        }
        let mut writer = encoder.write_header().map_err(unwritable)?;
        writer.write_image_data(&self.samples.big_endian()).map_err(unwritable)?;
        writer.finish().map_err(unwritable)
    }

    fn jpeg(&self, mut target: impl Write, quality: u8) -> Result<()> {
        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
        // This encoder takes both; if it did not, nothing else would be lost.
        if let Some(profile) = self.metadata.profile_for(self.channels > 2) {
            let _ = encoder.set_icc_profile(profile.clone());
        }
        if let Some(exif) = fitting(&self.metadata.exif, JPEG_EXIF) {
            let _ = encoder.set_exif_metadata(exif.clone());
        }
        self.with(encoder)?;
        let mut rest = bytes.as_slice();
        if let Some(xmp) = fitting(&self.metadata.xmp, JPEG_XMP) {
            // After the start marker and the JFIF segment that follows it.
            let jfif = rest.get(2..6).filter(|segment| segment.starts_with(&[0xFF, 0xE0]));
            let start = 2 + jfif.map_or(0, |s| 2 + usize::from(u16::from_be_bytes([s[2], s[3]])));
            let start = start.min(rest.len());
            target.write_all(&rest[..start])?;
            // It fits.
            let length = (2 + JPEG_XMP.len() + xmp.len()) as u16;
            target.write_all(&[0xFF, 0xE1])?;
            target.write_all(&length.to_be_bytes())?;
            target.write_all(JPEG_XMP)?;
            target.write_all(xmp)?;
            rest = &rest[start..];
        }
        Ok(target.write_all(rest)?)
    }

    fn webp(&self, target: impl Write) -> Result<()> {
        let mut encoder = image_webp::WebPEncoder::new(target);
        // Grey is stored as colour there.
        if let Some(profile) = self.metadata.profile_for(true) {
            encoder.set_icc_profile(profile.clone());
        }
        if let Some(exif) = &self.metadata.exif {
            encoder.set_exif_metadata(exif.clone());
        }
        if let Some(xmp) = &self.metadata.xmp {
            encoder.set_xmp_metadata(xmp.clone());
        }
        let color = match self.channels {
            1 => image_webp::ColorType::L8,
            2 => image_webp::ColorType::La8,
            3 => image_webp::ColorType::Rgb8,
            _ => image_webp::ColorType::Rgba8,
        };
        let (height, width) = (self.size.0 as u32, self.size.1 as u32);
        encoder.encode(self.samples.bytes(), width, height, color).map_err(|error| match error {
            image_webp::EncodingError::IoError(error) => error.into(),
            error => ErrorKind::Input(format!("the image cannot be written as WebP: {error}")).into(),
        })
    }

    /// PGM, PPM, or PAM where there is transparency: a header in text, and samples, the high byte first. The
    /// image crate writes no 16-bit samples.
    fn pnm(&self, mut target: impl Write) -> Result<()> {
        let (height, width) = self.size;
        let largest = if self.samples.depth() == Depth::Sixteen { 65535 } else { 255 };
        let header = match self.channels {
            1 => format!("P5\n{width} {height}\n{largest}\n"),
            3 => format!("P6\n{width} {height}\n{largest}\n"),
            channels => {
                let kind = if channels == 2 { "GRAYSCALE_ALPHA" } else { "RGB_ALPHA" };
                format!(
                    "P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH {channels}\nMAXVAL {largest}\n\
                     TUPLTYPE {kind}\nENDHDR\n"
                )
            }
        };
        target.write_all(header.as_bytes())?;
        Ok(target.write_all(&self.samples.big_endian())?)
    }
}

/// The data, if they fit into one segment of a JPEG file after its prefix; else left out.
fn fitting<'a>(data: &'a Option<Vec<u8>>, prefix: &[u8]) -> Option<&'a Vec<u8>> {
    data.as_ref().filter(|data| prefix.len() + data.len() <= JPEG_SEGMENT)
}

fn unwritable(error: png::EncodingError) -> crate::Error {
    match error {
        png::EncodingError::IoError(error) => error.into(),
        error => ErrorKind::Input(format!("the image cannot be written as PNG: {error}")).into(),
    }
}
