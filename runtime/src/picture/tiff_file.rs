//! What the image crate lacks for TIFF: grey float samples, transparency beside grey, EXIF and XMP.

use super::Header;
use super::decode::unsupported;
use super::metadata::Metadata;
use super::samples::Samples;
use crate::error::{ErrorKind, Result};
use exif::experimental::Writer;
use exif::{Context, Field, In, Reader, Value};
use image::metadata::Orientation;
use std::io::{BufReader, Cursor, Read, Seek, Write};
use std::path::Path;
use tiff::Directory;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::encoder::colortype::{ColorType, Gray8, Gray16, Gray32Float, RGB8, RGB16, RGB32Float};
use tiff::encoder::{Compression, DirectoryEncoder, Predictor, TiffEncoder, TiffKind, TiffValue};
use tiff::tags::{ExtraSamples, SampleFormat, Tag, Type};

const XMP: Tag = Tag::Unknown(700);
const INTEGERS: &str = "32-bit integers are not supported; convert it to 16 bits or to floats";
/// Marks a page that is a smaller copy of another.
const REDUCED: u32 = 1;

/// What describes the picture in the first directory of a file; the other fields there describe how the
/// samples are stored.
const DESCRIPTIVE: [exif::Tag; 10] = [
    exif::Tag::ImageDescription,
    exif::Tag::Make,
    exif::Tag::Model,
    exif::Tag::XResolution,
    exif::Tag::YResolution,
    exif::Tag::ResolutionUnit,
    exif::Tag::Software,
    exif::Tag::DateTime,
    exif::Tag::Artist,
    exif::Tag::Copyright,
];

/// How many pages of full size a file has.
///
/// # Errors
/// [`ErrorKind::Image`], [`ErrorKind::Io`].
pub(super) fn pages(path: &Path) -> Result<usize> {
    let mut decoder = open(path)?;
    let mut pages = 0;
    loop {
        let kind: Option<u32> = decoder.find_tag_unsigned(Tag::NewSubfileType).map_err(unreadable)?;
        pages += usize::from(kind.unwrap_or(0) & REDUCED == 0);
        // Two are too many already, and a file may hold any number.
        if pages > 1 || !decoder.more_images() {
            return Ok(pages);
        }
        decoder.next_image().map_err(unreadable)?;
    }
}

/// Refuses what would be read as something else: integers as floats, and more channels than are known.
///
/// # Errors
/// [`ErrorKind::Input`], [`ErrorKind::Image`], [`ErrorKind::Io`].
pub(super) fn check(path: &Path) -> Result<()> {
    let mut decoder = open(path)?;
    let color = decoder.colortype().map_err(unreadable)?;
    let formats: Option<Vec<u16>> = decoder.find_tag_unsigned_vec(Tag::SampleFormat).map_err(unreadable)?;
    let are_floats = formats.is_some_and(|all| all.iter().all(|f| *f == SampleFormat::IEEEFP.to_u16()));
    if color.bit_depth() == 32 && !are_floats {
        return Err(ErrorKind::Input(INTEGERS.into()).into());
    }
    if let tiff::ColorType::Multiband { num_samples: 2, .. } = color {
        let extra = decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples).map_err(unreadable)?;
        let alpha =
            [ExtraSamples::AssociatedAlpha, ExtraSamples::UnassociatedAlpha].map(|kind| kind.to_u16());
        if !extra.unwrap_or_default().first().is_some_and(|kind| alpha.contains(kind)) {
            return Err(unknown_channels(2, 1));
        }
    }
    let samples: Option<u16> = decoder.find_tag_unsigned(Tag::SamplesPerPixel).map_err(unreadable)?;
    if samples.is_some_and(|samples| samples > color.num_samples()) {
        let (all, known) = (samples.unwrap_or_default(), color.num_samples());
        return Err(unknown_channels(all, all - known));
    }
    Ok(())
}

fn unknown_channels(all: u16, unknown: u16) -> crate::Error {
    ErrorKind::Input(format!("it has {all} channels, {unknown} of them of unknown meaning; leave those out"))
        .into()
}

/// The image in a file of grey floats or of grey with transparency; `None` for files that the image crate
/// reads. `bound` is asked before memory is taken.
///
/// # Errors
/// [`ErrorKind::Input`], [`ErrorKind::Io`], and those of `bound`.
pub(super) fn read_grey(path: &Path, bound: impl Fn(usize, usize) -> Result<()>) -> Result<Option<Grey>> {
    let mut decoder = open(path)?;
    let (bits, channels) = match decoder.colortype().map_err(unreadable)? {
        tiff::ColorType::Gray(bits @ 32) => (bits, 1),
        tiff::ColorType::Multiband { bit_depth: bits @ (8 | 16 | 32), num_samples: 2 } => (bits, 2),
        _ => return Ok(None),
    };
    let (width, height) = decoder.dimensions().map_err(unreadable)?;
    let (height, width) = (height as usize, width as usize);
    bound(height, width)?;
    let mut limits = Limits::default();
    limits.decoding_buffer_size = height * width * channels * usize::from(bits / 8);
    // A file may hold all of them in one strip, and what is compressed may be a little longer.
    let strip = limits.decoding_buffer_size + limits.decoding_buffer_size / 8 + (1 << 20);
    limits.intermediate_buffer_size = limits.intermediate_buffer_size.max(strip);
    let samples = match decoder.with_limits(limits).read_image().map_err(unreadable)? {
        DecodingResult::U8(samples) => Samples::Eight(samples),
        DecodingResult::U16(samples) => Samples::Sixteen(samples),
        DecodingResult::F32(samples) => Samples::Float(samples),
        _ => return Err(ErrorKind::Input(INTEGERS.into()).into()),
    };
    if samples.len() != height * width * channels {
        return Err(
            ErrorKind::Input("its channels lie in separate planes, which is not supported".into()).into()
        );
    }
    Ok(Some(Grey { samples, height, width, channels }))
}

/// Grey samples, or grey and transparency in turn.
pub(super) struct Grey {
    pub(super) samples: Samples,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
}

fn open(path: &Path) -> Result<Decoder<BufReader<std::fs::File>>> {
    Decoder::new(BufReader::new(std::fs::File::open(path)?)).map_err(unreadable)
}

fn unreadable(error: tiff::TiffError) -> crate::Error {
    match error {
        tiff::TiffError::IoError(error) => error.into(),
        tiff::TiffError::UnsupportedError(reason) => unsupported(reason),
        error => ErrorKind::Input(format!("the TIFF data cannot be read: {error}")).into(),
    }
}

/// What a file's samples will take.
///
/// # Errors
/// [`ErrorKind::Input`], [`ErrorKind::Io`].
pub(super) fn header(path: &Path) -> Result<Header> {
    let mut decoder = open(path)?;
    let color = decoder.colortype().map_err(unreadable)?;
    let (width, height) = decoder.dimensions().map_err(unreadable)?;
    let pixel = u64::from(color.num_samples()) * u64::from(color.bit_depth()).div_ceil(8);
    let pixels = u64::from(width) * u64::from(height);
    Ok(Header { bytes: pixels.saturating_mul(pixel), pixels })
}

/// Whether the colours of a file have been multiplied by its transparency ("associated alpha").
///
/// # Errors
/// [`ErrorKind::Input`], [`ErrorKind::Io`].
pub(super) fn is_premultiplied(path: &Path) -> Result<bool> {
    let kinds = open(path)?.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples).map_err(unreadable)?;
    Ok(kinds.unwrap_or_default().first() == Some(&ExtraSamples::AssociatedAlpha.to_u16()))
}

/// What a TIFF file says beside its pixels, and how it is turned, if it says so. Unreadable parts are left out: they must
/// not cost the image.
///
/// # Errors
/// [`ErrorKind::Input`], [`ErrorKind::Io`].
pub(super) fn describe(path: &Path) -> Result<(Metadata, Option<Orientation>)> {
    let mut decoder = open(path)?;
    let metadata = Metadata {
        profile: decoder.get_tag_u8_vec(Tag::IccProfile).ok(),
        exif: read_exif(path),
        xmp: decoder.get_tag_u8_vec(XMP).ok(),
    };
    let orientation: Option<u8> = decoder.find_tag_unsigned(Tag::Orientation).ok().flatten();
    Ok((metadata, orientation.and_then(Orientation::from_exif)))
}

/// Bytes that a file may hold beside its samples for its EXIF to be read.
const MAX_BESIDE: u64 = 1 << 24;

/// The descriptive fields of a TIFF file as EXIF.
fn read_exif(path: &Path) -> Option<Vec<u8>> {
    let file = std::fs::File::open(path).ok()?;
    // The reader loads the whole file: no more than the memory reckoned for the image. Offsets have 32 bits.
    let most = header(path).ok()?.bytes.saturating_add(MAX_BESIDE).min(u64::from(u32::MAX));
    if file.metadata().ok()?.len() > most {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).ok()?;
    let fields = fields(bytes);
    if fields.is_empty() {
        return None;
    }
    let mut writer = Writer::new();
    fields.iter().for_each(|field| writer.push_field(field));
    let mut exif = Cursor::new(Vec::new());
    writer.write(&mut exif, cfg!(target_endian = "little")).ok()?;
    Some(exif.into_inner())
}

/// Memory that the values of all fields may take: any number of fields may share the bytes of one value.
const MAX_VALUES: usize = 1 << 24;

/// Fields of EXIF, or of a TIFF file, that say something about the picture, up to [`MAX_VALUES`]. The first value of all
/// is parsed whatever its size; a text of NULs takes 24 times its own.
fn fields(exif: Vec<u8>) -> Vec<Field> {
    let read = Reader::new().continue_on_error(true).read_raw(exif);
    let Ok(exif) = read.or_else(|error| error.distill_partial_result(|_| {})) else {
        return Vec::new();
    };
    // A field is parsed when it is asked for.
    let mut left = MAX_VALUES;
    exif.fields()
        .take_while(|field| {
            left = left.saturating_sub(memory(&field.value));
            left > 0
        })
        .filter(|field| field.ifd_num == In::PRIMARY)
        .filter(|field| field.tag.context() != Context::Tiff || DESCRIPTIVE.contains(&field.tag))
        .cloned()
        .collect()
}

/// About how many bytes of memory a value takes.
fn memory(value: &Value) -> usize {
    match value {
        Value::Byte(v) | Value::Undefined(v, _) => v.len(),
        // A string of its own for each part.
        Value::Ascii(v) => v.iter().map(|text| text.len() + size_of::<Vec<u8>>()).sum(),
        Value::SByte(v) => v.len(),
        Value::Short(v) => 2 * v.len(),
        Value::SShort(v) => 2 * v.len(),
        Value::Long(v) => 4 * v.len(),
        Value::SLong(v) => 4 * v.len(),
        Value::Float(v) => 4 * v.len(),
        Value::Rational(v) => 8 * v.len(),
        Value::SRational(v) => 8 * v.len(),
        Value::Double(v) => 8 * v.len(),
        Value::Unknown(..) => 0,
    }
}

/// Writes a file: samples of 1 to 4 channels, of which the second or fourth is transparency.
///
/// # Errors
/// [`ErrorKind::Io`], [`ErrorKind::Input`].
pub(super) fn write(
    target: impl Write + Seek,
    samples: &Samples,
    (height, width): (usize, usize),
    metadata: &Metadata,
) -> Result<()> {
    let channels = samples.len() / (height * width);
    let file = File { height, width, channels, metadata };
    let grey = channels <= 2;
    match samples {
        Samples::Eight(v) if grey => file.write::<Gray8>(target, v),
        Samples::Eight(v) => file.write::<RGB8>(target, v),
        Samples::Sixteen(v) if grey => file.write::<Gray16>(target, v),
        Samples::Sixteen(v) => file.write::<RGB16>(target, v),
        Samples::Float(v) if grey => file.write::<Gray32Float>(target, v),
        Samples::Float(v) => file.write::<RGB32Float>(target, v),
    }
    .map_err(|error| match error {
        tiff::TiffError::IoError(error) => error.into(),
        error => ErrorKind::Input(format!("the image cannot be written as TIFF: {error}")).into(),
    })
}

struct File<'a> {
    height: usize,
    width: usize,
    channels: usize,
    metadata: &'a Metadata,
}

impl File<'_> {
    fn write<C: ColorType>(&self, target: impl Write + Seek, samples: &[C::Inner]) -> tiff::TiffResult<()>
    where
        [C::Inner]: TiffValue,
    {
        // Differences of neighbours compress better; for floats they are not defined.
        let float = C::SAMPLE_FORMAT[0] == tiff::tags::SampleFormat::IEEEFP;
        let predictor = if float { Predictor::None } else { Predictor::Horizontal };
        // This encoder's predictor does not allow for transparency.
        let alpha = self.channels.is_multiple_of(2);
        let predictor = if alpha { Predictor::None } else { predictor };
        let mut encoder = TiffEncoder::new(target)?
            .with_compression(Compression::Deflate(tiff::encoder::DeflateLevel::Fast))
            .with_predictor(predictor);
        let fields = self.metadata.exif.clone().map(fields).unwrap_or_default();
        let mut links = Vec::new();
        for (context, link) in [(Context::Exif, Tag::ExifDirectory), (Context::Gps, Tag::GpsDirectory)] {
            let of: Vec<&Field> = fields.iter().filter(|field| field.tag.context() == context).collect();
            if !of.is_empty() {
                let mut directory = encoder.extra_directory()?;
                write_fields(&mut directory, &of)?;
                links.push((link, directory.finish_with_offsets()?.offset));
            }
        }
        let mut image = encoder.new_image::<C>(self.width as u32, self.height as u32)?;
        if alpha {
            image.extra_samples(&[ExtraSamples::UnassociatedAlpha])?;
        }
        let directory = image.encoder();
        for (tag, offset) in links {
            directory.write_tag(tag, offset)?;
        }
        let described: Vec<&Field> = fields.iter().filter(|f| f.tag.context() == Context::Tiff).collect();
        write_fields(directory, &described)?;
        if let Some(profile) = self.metadata.profile_for(self.channels > 2) {
            let entry = directory.write_entry_bytes(Type::UNDEFINED, profile)?;
            extend(directory, Tag::IccProfile, entry);
        }
        if let Some(xmp) = &self.metadata.xmp {
            directory.write_tag(XMP, xmp.as_slice())?;
        }
        image.write_data(samples)
    }
}

fn extend<W: Write + Seek, K: TiffKind>(
    directory: &mut DirectoryEncoder<W, K>,
    tag: Tag,
    entry: tiff::decoder::ifd::Entry,
) {
    let mut one = Directory::empty();
    one.extend([(tag, entry)]);
    directory.extend_from(&one);
}

fn write_fields<W: Write + Seek, K: TiffKind>(
    directory: &mut DirectoryEncoder<W, K>,
    fields: &[&Field],
) -> tiff::TiffResult<()> {
    for field in fields {
        if let Some((kind, bytes)) = encoded(&field.value) {
            let entry = directory.write_entry_bytes(kind, &bytes)?;
            extend(directory, Tag::from_u16_exhaustive(field.tag.number()), entry);
        }
    }
    Ok(())
}

/// Type and bytes of a value, in the machine's byte order.
fn encoded(value: &Value) -> Option<(Type, Vec<u8>)> {
    fn all<T, const N: usize>(values: &[T], bytes: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
        values.iter().flat_map(bytes).collect()
    }
    Some(match value {
        Value::Byte(v) => (Type::BYTE, v.clone()),
        Value::Ascii(v) => (Type::ASCII, v.iter().flat_map(|text| text.iter().copied().chain([0])).collect()),
        Value::Short(v) => (Type::SHORT, all(v, |n| n.to_ne_bytes())),
        Value::Long(v) => (Type::LONG, all(v, |n| n.to_ne_bytes())),
        Value::Rational(v) => (Type::RATIONAL, all(v, |r| pair(r.num.to_ne_bytes(), r.denom.to_ne_bytes()))),
        Value::SByte(v) => (Type::SBYTE, all(v, |n| n.to_ne_bytes())),
        Value::Undefined(v, _) => (Type::UNDEFINED, v.clone()),
        Value::SShort(v) => (Type::SSHORT, all(v, |n| n.to_ne_bytes())),
        Value::SLong(v) => (Type::SLONG, all(v, |n| n.to_ne_bytes())),
        Value::SRational(v) => {
            (Type::SRATIONAL, all(v, |r| pair(r.num.to_ne_bytes(), r.denom.to_ne_bytes())))
        }
        Value::Float(v) => (Type::FLOAT, all(v, |n| n.to_ne_bytes())),
        Value::Double(v) => (Type::DOUBLE, all(v, |n| n.to_ne_bytes())),
        Value::Unknown(..) => return None,
    })
}

fn pair(a: [u8; 4], b: [u8; 4]) -> [u8; 8] {
    let mut both = [0; 8];
    both[..4].copy_from_slice(&a);
    both[4..].copy_from_slice(&b);
    both
}
