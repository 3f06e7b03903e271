//! Decodes image files, which are untrusted.

use super::format::{Format, names};
use super::metadata::Metadata;
use super::samples::Samples;
use super::{Header, MAX_PIXELS, Picture, png_file, tiff_file};
use crate::error::{ErrorKind, Result};
use gradresnet_models::staged;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor};
use std::path::Path;

/// Largest JPEG file accepted.
const MAX_JPEG_BYTES: u64 = 4 * MAX_PIXELS as u64;
/// Most memory that a decoder may take: twice the largest image with float samples and transparency.
const MAX_DECODER_BYTES: u64 = 32 * MAX_PIXELS as u64;

/// Of a file that takes no memory because it will be refused when it is read.
const REFUSED: Header = Header { bytes: 0, pixels: 0 };

const CMYK: &str = "the image is CMYK; convert it to RGB first";

/// How TIFF files with 64-bit offsets begin.
const BIG_TIFF: [&[u8; 4]; 2] = [b"II+\0", b"MM\0+"];

/// What the decoded samples of a file take.
pub(super) fn header(path: &Path) -> Result<Header> {
    let mut reader = open(path)?;
    let length = std::fs::metadata(path)?.len();
    match reader.format() {
        Some(ImageFormat::Png) => {
            let (height, width) = png_file::size(path)?;
            if bound(height, width).is_err() {
                return Ok(REFUSED);
            }
            reader.limits(png_file::limits(width));
        }
        // Its decoder would hold all of it.
        Some(ImageFormat::Jpeg) if length > MAX_JPEG_BYTES => return Ok(REFUSED),
        _ => {}
    }
    match reader.into_decoder() {
        Ok(decoder) => {
            let (width, height) = decoder.dimensions();
            Ok(Header { bytes: decoder.total_bytes(), pixels: u64::from(width) * u64::from(height) })
        }
        // TIFF files that this crate reads itself, and unreadable ones.
        Err(_) => tiff_file::header(path).or(Ok(Header { bytes: length, pixels: 0 })),
    }
}

/// Reads a file; its content tells the format.
pub(super) fn decode(path: &Path) -> Result<Picture> {
    let mut reader = open(path)?;
    let format = match reader.format() {
        None => return Err(refused(format!("it is none of {}", names()))),
        Some(format) => Format::of(format).ok_or_else(|| {
            refused(format!("{format:?} files are not read; convert it to one of {}", names()))
        })?,
    };
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    if format == Format::Png {
        let (height, width) = png_file::size(path)?;
        bound(height, width)?;
        limits = png_file::limits(width);
    }
    reader.limits(limits.clone());
    let again = || -> Result<BufReader<File>> { Ok(BufReader::new(File::open(path)?)) };
    let frames = match format {
        Format::Png if PngDecoder::with_limits(again()?, limits.clone())?.is_apng()? => 2,
        Format::Webp if WebPDecoder::new(again()?)?.has_animation() => 2,
        Format::Tiff => tiff_file::pages(path)?,
        _ => 1,
    };
    if format == Format::Tiff {
        tiff_file::check(path)?;
    }
    if frames > 1 {
        return Err(refused("it holds more than one image; split it first".into()));
    }

    let grey = if format == Format::Tiff { tiff_file::read_grey(path, bound)? } else { None };
    let (mut metadata, orientation, mut samples, (mut height, mut width), channels);
    if let Some(grey) = grey {
        (metadata, orientation) = tiff_file::describe(path)?;
        (samples, (height, width), channels) = (grey.samples, (grey.height, grey.width), grey.channels);
    } else {
        let mut decoder: Box<dyn ImageDecoder> = match format {
            Format::Jpeg => Box::new(jpeg(path, limits)?),
            _ => Box::new(reader.into_decoder()?),
        };
        (height, width) = (decoder.dimensions().1 as usize, decoder.dimensions().0 as usize);
        bound(height, width)?;
        if let ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16 = decoder.original_color_type() {
            return Err(refused(CMYK.into()));
        }
        (metadata, orientation) = match format {
            Format::Tiff => tiff_file::describe(path)?,
            // Damaged metadata must not cost a sound image.
            _ => {
                let (profile, exif) = (decoder.icc_profile().ok().flatten(), decoder.exif_metadata());
                let xmp = decoder.xmp_metadata().ok().flatten();
                let mut metadata = Metadata { profile, exif: exif.ok().flatten(), xmp };
                if format == Format::Png {
                    let _ = png_file::add_late(path, &mut metadata);
                }
                let orientation = metadata.exif.as_deref().and_then(Orientation::from_exif_chunk);
                (metadata, orientation)
            }
        };
        channels = usize::from(decoder.color_type().channel_count());
        samples = stored(DynamicImage::from_decoder(decoder)?)?;
    }
    if format == Format::Tiff && channels.is_multiple_of(2) && tiff_file::is_premultiplied(path)? {
        samples.divide_by_alpha(channels);
    }
    if !samples.all_finite() {
        return Err(ErrorKind::NotFinite("the image").into());
    }
    if samples.on_another_scale() {
        return Err(refused(
            "more than a quarter of its samples are above 4, and in float files 0 is black and 1 is white; divide them \
             by what stands for white"
                .into(),
        ));
    }
    metadata.leave_out_thumbnail();
    if let Some(orientation) = orientation {
        (height, width) = samples.turn((height, width), orientation);
        metadata.set_upright();
    }
    Ok(Picture { depth: samples.depth(), samples, height, width, channels, metadata, format })
}

/// A file with its format, which its content tells, whatever its name says.
fn open(path: &Path) -> Result<ImageReader<BufReader<File>>> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(std::io::Error::from(std::io::ErrorKind::IsADirectory).into());
    }
    // To open a named pipe would wait for a writer.
    if !metadata.is_file() {
        return Err(refused("not a regular file".into()));
    }
    let mut file = BufReader::new(File::open(path)?);
    let start = file.fill_buf()?;
    if start.is_empty() {
        return Err(refused("the file is empty".into()));
    }
    // The image crate reads these files but does not know them by their content.
    if BIG_TIFF.iter().any(|magic| start.starts_with(*magic)) {
        return Ok(ImageReader::with_format(file, ImageFormat::Tiff));
    }
    Ok(ImageReader::new(file).with_guessed_format()?)
}

fn jpeg(path: &Path, limits: Limits) -> Result<impl ImageDecoder> {
    let bytes = staged::read_bounded(path, MAX_JPEG_BYTES)?;
    // The decoder silently makes RGB of CMYK, without its profile.
    match jpeg_components(&bytes) {
        None => return Err(refused("the JPEG data end before the image does".into())),
        Some(4) => return Err(refused(CMYK.into())),
        Some(_) => {}
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Jpeg);
    reader.limits(limits);
    Ok(reader.into_decoder()?)
}

/// Names the usual cause of an error in reading, or its cure.
pub(super) fn named(error: crate::Error) -> crate::Error {
    let cause = match error.kind() {
        ErrorKind::Io(error) | ErrorKind::Image(ImageError::IoError(error)) => error.kind(),
        ErrorKind::Image(ImageError::Unsupported(reason)) => return unsupported(reason),
        ErrorKind::Image(ImageError::Limits(_)) => {
            return refused(
                "it takes too much memory: it is damaged, or what it holds beside its pixels, such as EXIF and XMP, is \
                 too large; remove that first"
                    .into(),
            );
        }
        _ => return error,
    };
    match cause {
        std::io::ErrorKind::UnexpectedEof => refused("the file ends before the image does".into()),
        _ => error,
    }
}

/// What a decoder knows of and does not read.
pub(super) fn unsupported(reason: impl std::fmt::Display) -> crate::Error {
    refused(format!(
        "files of this kind are not read ({reason}); convert it to RGB or grey of 8 or 16 bits first"
    ))
}

fn refused(reason: String) -> crate::Error {
    ErrorKind::Input(reason).into()
}

fn bound(height: usize, width: usize) -> Result<()> {
    if height == 0 || width == 0 {
        return Err(refused("the image is empty".into()));
    }
    if height.saturating_mul(width) > MAX_PIXELS {
        let cure = "; cut it into parts";
        return Err(ErrorKind::TooLarge { height, width, limit: MAX_PIXELS, cure }.into());
    }
    Ok(())
}

fn stored(image: DynamicImage) -> Result<Samples> {
    Ok(match image {
        DynamicImage::ImageLuma8(image) => Samples::Eight(image.into_raw()),
        DynamicImage::ImageLumaA8(image) => Samples::Eight(image.into_raw()),
        DynamicImage::ImageRgb8(image) => Samples::Eight(image.into_raw()),
        DynamicImage::ImageRgba8(image) => Samples::Eight(image.into_raw()),
        DynamicImage::ImageLuma16(image) => Samples::Sixteen(image.into_raw()),
        DynamicImage::ImageLumaA16(image) => Samples::Sixteen(image.into_raw()),
        DynamicImage::ImageRgb16(image) => Samples::Sixteen(image.into_raw()),
        DynamicImage::ImageRgba16(image) => Samples::Sixteen(image.into_raw()),
        DynamicImage::ImageRgb32F(image) => Samples::Float(image.into_raw()),
        DynamicImage::ImageRgba32F(image) => Samples::Float(image.into_raw()),
        other => return Err(refused(format!("samples of kind {:?} are not read", other.color()))),
    })
}

/// How many colour components a JPEG file has; `None` if its scan data do not reach its end marker: the decoder
/// silently fills what is missing with grey.
fn jpeg_components(bytes: &[u8]) -> Option<u8> {
    const START_OF_SCAN: u8 = 0xDA;
    const END: [u8; 2] = [0xFF, 0xD9];
    let (mut at, mut components) = (2, 0);
    loop {
        let [0xFF, marker] = *bytes.get(at..at + 2)? else {
            // Stray bytes between segments are passed over, as by other readers.
            at += 1;
            continue;
        };
        match marker {
            START_OF_SCAN => return bytes[at..].windows(2).any(|two| two == END).then_some(components),
            0xFF => at += 1,
            // Markers without a length.
            0x01 | 0xD0..=0xD8 => at += 2,
            _ => {
                // Starts of frames: marker, length, precision, height, width, components. Three of this range
                // are something else.
                if matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC) {
                    components = *bytes.get(at + 9)?;
                }
                let length = bytes.get(at + 2..at + 4)?;
                at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
}
