//! Image files: decoded within bounds, changed in place, and encoded in their own format again.

mod decode;
mod encode;
mod format;
mod hidden;
mod metadata;
mod png_file;
mod samples;
mod tiff_file;

pub use encode::Encoding;
pub use format::{Format, extensions, names};

use crate::error::{At, ErrorKind, Result, catch_panic};
use gradresnet_models::staged;
use metadata::Metadata;
use ndarray::{Array3, ArrayView3, s};
use samples::{Depth, Samples};
use std::io::BufWriter;
use std::path::Path;

/// Largest image that is read: 2²⁷ pixels, which take 384 MiB at 8 bits and 1.5 GiB as float32.
pub const MAX_PIXELS: usize = 1 << 27;

/// An image as it was decoded, and what is needed to write a file like the one it came from. Samples stay
/// at their depth in memory. Colours are sRGB or whatever the profile says, and are not converted. An
/// orientation in the EXIF data has been applied.
#[derive(Clone, Debug)]
pub struct Picture {
    samples: Samples,
    height: usize,
    width: usize,
    /// 1 grey, 2 grey and transparency, 3 RGB, 4 RGB and transparency.
    channels: usize,
    /// That of the file it came from.
    depth: Depth,
    metadata: Metadata,
    format: Format,
}

/// What the samples of a file take in memory; zeros for a file that will be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Of the samples as they are stored.
    pub bytes: u64,
    /// Rows times columns.
    pub pixels: u64,
}

impl Picture {
    /// An 8-bit colour picture with these pixels `[3,H,W]` in image units, to be written as PNG. Until
    /// then they are kept as they are.
    pub fn from_pixels(pixels: ArrayView3<f32>) -> Picture {
        let (channels, height, width) = pixels.dim();
        let samples = pixels.permuted_axes([1, 2, 0]).iter().copied().collect();
        Picture {
            samples: Samples::Float(samples),
            height,
            width,
            channels,
            depth: Depth::Eight,
            metadata: Metadata::default(),
            format: Format::Png,
        }
    }

    /// Reads a file; its content tells the format.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], [`ErrorKind::Image`], [`ErrorKind::Input`] for what is recognised but not read,
    /// [`ErrorKind::TooLarge`] (before memory is taken), [`ErrorKind::NotFinite`].
    pub fn read(path: &Path) -> Result<Picture> {
        // The decoders are not ours, and the files untrusted.
        catch_panic(|| decode::decode(path))
            .unwrap_or_else(|reason| Err(ErrorKind::Input(format!("the decoder failed: {reason}")).into()))
            .map_err(decode::named)
            .at(path)
    }

    /// What a file's samples would take, from its header.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], [`ErrorKind::Input`] for a file that is empty or ends within its header.
    pub fn header(path: &Path) -> Result<Header> {
        let nothing = Header { bytes: 0, pixels: 0 };
        catch_panic(|| decode::header(path)).unwrap_or(Ok(nothing)).map_err(decode::named).at(path)
    }

    /// Writes the file beside its target and renames it. Samples that become integers are rounded and
    /// clipped to [0, 1]. An existing file is replaced, and keeps its permissions.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] for what the format cannot hold, [`ErrorKind::Image`], [`ErrorKind::Io`].
    pub fn write(&self, path: &Path, encoding: &Encoding) -> Result<()> {
        self.write_or_replace(path, encoding, true)
    }

    /// As [`Picture::write`], but an existing file stays, even one that appears meanwhile.
    ///
    /// # Errors
    /// Those of [`Picture::write`], and [`ErrorKind::Bundle`] if it exists.
    pub fn write_new(&self, path: &Path, encoding: &Encoding) -> Result<()> {
        self.write_or_replace(path, encoding, false)
    }

    fn write_or_replace(&self, path: &Path, encoding: &Encoding, replace: bool) -> Result<()> {
        staged::write_with(path, replace, |file| -> Result<()> {
            let mut file = BufWriter::new(file);
            self.encode(&mut file, encoding).at(path)?;
            file.into_inner().map_err(|error| error.into_error()).at(path)?;
            Ok(())
        })
    }

    /// Whether the file had one colour channel.
    pub fn is_grey(&self) -> bool {
        self.channels <= 2
    }

    /// Whether every pixel that can be seen is grey, in a file of one colour channel or of three.
    pub(crate) fn is_colorless(&self) -> bool {
        let equal = |y: usize, x: usize| {
            let [r, g, b] = [0, 1, 2].map(|c| self.pixel(c, y, x));
            r == g && g == b
        };
        self.is_grey()
            || (0..self.height).all(|y| (0..self.width).all(|x| equal(y, x) || self.is_hidden(y, x)))
    }

    /// Whether samples are held as integers, which stand for [0, 1].
    pub(crate) fn is_of_integers(&self) -> bool {
        self.samples.depth() != Depth::Float
    }

    /// Whether the file has transparency.
    pub fn has_alpha(&self) -> bool {
        self.channels.is_multiple_of(2)
    }

    /// Rows and columns.
    pub fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// All pixels, RGB, `[3,H,W]`, in image units; a grey image has three equal channels. Integer samples
    /// of all depths are scaled to [0, 1], float samples are taken as they are.
    pub fn pixels(&self) -> Array3<f32> {
        Array3::from_shape_fn((3, self.height, self.width), |(c, y, x)| self.pixel(c, y, x))
    }

    /// One sample of [`Picture::pixels`].
    pub(crate) fn pixel(&self, channel: usize, y: usize, x: usize) -> f32 {
        let channel = if self.is_grey() { 0 } else { channel };
        self.samples.get((y * self.width + x) * self.channels + channel)
    }

    /// Replaces pixels from row `top` and column `left` on with `[3,h,w]`; a grey picture takes the mean of
    /// the three channels.
    pub(crate) fn replace(&mut self, (top, left): (usize, usize), pixels: ArrayView3<f32>) {
        let (_, height, width) = pixels.dim();
        for y in 0..height {
            for x in 0..width {
                let start = ((top + y) * self.width + left + x) * self.channels;
                if self.is_grey() {
                    let sum: f32 = (0..3).map(|c| pixels[[c, y, x]]).sum();
                    self.samples.set(start, sum / 3.0);
                } else {
                    (0..3).for_each(|c| self.samples.set(start + c, pixels[[c, y, x]]));
                }
            }
        }
    }

    /// Whether a pixel cannot be seen, because it is wholly transparent.
    pub(crate) fn is_hidden(&self, y: usize, x: usize) -> bool {
        self.has_alpha() && self.samples.get((y * self.width + x + 1) * self.channels - 1) <= 0.0
    }

    /// Changes every sample but those of transparency; all are floats until the picture is written.
    pub(crate) fn map_samples(&mut self, mut change: impl FnMut(f32) -> f32) {
        let mut samples = self.samples.at(Depth::Float).into_owned();
        let (channels, alpha) = (self.channels, self.has_alpha());
        for i in (0..samples.len()).filter(|i| !(alpha && i % channels == channels - 1)) {
            samples.set(i, change(samples.get(i)));
        }
        self.samples = samples;
    }

    /// Cuts out the central square and scales it to `side`×`side` pixels, each the average of what it
    /// covers (a triangle filter).
    pub fn resized(&self, side: usize) -> Array3<f32> {
        let (height, width) = self.size();
        let square = height.min(width);
        let (top, left) = ((height - square) / 2, (width - square) / 2);
        if square == side {
            return self.pixels().slice_move(s![.., top..top + square, left..left + square]);
        }
        let mut source = image::ImageBuffer::from_fn(square as u32, square as u32, |x, y| {
            let (y, x) = (top + y as usize, left + x as usize);
            image::Rgb([0, 1, 2].map(|c| self.pixel(c, y, x)))
        });
        // The filter clips to [0, 1], where float samples need not lie, and is linear.
        let (low, high) = source.iter().fold((0f32, 1f32), |(low, high), &v| (low.min(v), high.max(v)));
        source.iter_mut().for_each(|v| *v = (*v - low) / (high - low));
        let filter = image::imageops::FilterType::Triangle;
        let scaled = image::imageops::resize(&source, side as u32, side as u32, filter);
        Array3::from_shape_fn((3, side, side), |(c, y, x)| {
            low + (high - low) * scaled[(x as u32, y as u32)].0[c]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ColorType, DynamicImage};
    use std::fs::File;
    use tiff::encoder::TiffEncoder;
    use tiff::encoder::colortype::{Gray8, Gray32Float, RGB8};
    use tiff::tags::ExtraSamples;

    fn as_format(format: Format) -> Encoding {
        Encoding { format: Some(format), ..Encoding::default() }
    }

    fn round_trip(image: &DynamicImage, format: Format) -> DynamicImage {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("a.png"), dir.path().join("b"));
        image.save(&source).unwrap();
        Picture::read(&source).unwrap().write(&target, &as_format(format)).unwrap();
        // Read and written again, it stays the same.
        Picture::read(&target).unwrap().write(&target, &Encoding::default()).unwrap();
        let last = dir.path().join("c.png");
        Picture::read(&target).unwrap().write(&last, &as_format(Format::Png)).unwrap();
        image::open(last).unwrap()
    }

    #[test]
    fn what_a_format_can_hold_comes_back_as_it_was() {
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
        let formats = [Format::Png, Format::Tiff, Format::Pnm, Format::Webp, Format::Bmp, Format::Qoi];
        for (image, format) in images.iter().flat_map(|image| formats.map(|format| (image, format))) {
            let color = image.color();
            let holds = match format {
                Format::Webp => color.bytes_per_pixel() == color.channel_count(),
                Format::Bmp => [ColorType::L8, ColorType::Rgb8, ColorType::Rgba8].contains(&color),
                Format::Qoi => [ColorType::Rgb8, ColorType::Rgba8].contains(&color),
                _ => true,
            };
            if holds {
                let found = round_trip(image, format);
                // Grey may come back as colour; its samples may not change.
                assert_eq!(found.to_rgba16(), image.to_rgba16(), "{format:?} {color:?}");
                let kept = matches!(format, Format::Png | Format::Tiff | Format::Pnm);
                assert!(!kept || found.color() == color, "{format:?} {color:?}: {:?}", found.color());
            }
        }
    }

    #[test]
    fn float_tiff_is_not_clipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tif");
        let mut pixels = Array3::from_elem((3, 4, 6), 0.5);
        pixels[[0, 0, 0]] = -0.25;
        pixels[[2, 3, 5]] = 1.75;
        Picture::from_pixels(pixels.view()).write(&path, &as_format(Format::Tiff32)).unwrap();
        let read = Picture::read(&path).unwrap();
        assert_eq!(read.pixels(), pixels);
        // Kept, it stays float.
        let again = dir.path().join("b.tif");
        read.write(&again, &Encoding::default()).unwrap();
        assert_eq!(Picture::read(&again).unwrap().pixels(), pixels);
    }

    /// Bright pictures are not on another scale, whether grey, with transparency or neither.
    #[test]
    fn float_tiff_on_another_scale_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (name, color) in [("l", ColorType::L8), ("la", ColorType::La8), ("rgb", ColorType::Rgb8)] {
            let (source, target) = (dir.path().join(format!("{name}.png")), dir.path().join("a.tif"));
            let bytes = vec![255; 6 * usize::from(color.channel_count())];
            image::save_buffer(&source, &bytes, 3, 2, color).unwrap();
            let mut picture = Picture::read(&source).unwrap();
            picture.map_samples(|_| 3.5);
            picture.write(&target, &as_format(Format::Tiff32)).unwrap();
            assert!(Picture::read(&target).is_ok(), "{name}");
            picture.map_samples(|_| 128.0);
            picture.write(&target, &as_format(Format::Tiff32)).unwrap();
            let error = Picture::read(&target).unwrap_err().to_string();
            assert!(error.contains("0 is black and 1 is white"), "{name}: {error}");
        }
    }

    #[test]
    fn grey_floats_stay_grey_floats() {
        let dir = tempfile::tempdir().unwrap();
        for (name, alpha) in [("l.png", false), ("la.png", true)] {
            let image = DynamicImage::new_rgba16(5, 3);
            let image =
                if alpha { image.to_luma_alpha16().into() } else { DynamicImage::from(image.to_luma16()) };
            let (source, target) = (dir.path().join(name), dir.path().join("a.tif"));
            image.save(&source).unwrap();
            let mut picture = Picture::read(&source).unwrap();
            picture.map_samples(|_| -0.5);
            picture.write(&target, &as_format(Format::Tiff32)).unwrap();
            let read = Picture::read(&target).unwrap();
            assert_eq!((read.is_grey(), read.has_alpha(), read.depth), (true, alpha, Depth::Float));
            assert!(read.pixels().iter().all(|&v| v == -0.5));
        }
    }

    /// Writes a TIFF file of two pixels of 100, 50, 25, with transparencies of 128 and 0.
    fn write_premultiplied<K: tiff::encoder::TiffKind>(path: &Path, encoder: TiffEncoder<File, K>) {
        let mut encoder = encoder;
        let mut image = encoder.new_image::<RGB8>(2, 1).unwrap();
        image.extra_samples(&[ExtraSamples::AssociatedAlpha]).unwrap();
        image.write_data(&[100, 50, 25, 128, 100, 50, 25, 0]).unwrap();
        assert!(path.is_file());
    }

    #[test]
    fn premultiplied_colours_become_straight() {
        let dir = tempfile::tempdir().unwrap();
        let (path, again) = (dir.path().join("a.tif"), dir.path().join("b.tif"));
        write_premultiplied(&path, TiffEncoder::new(File::create(&path).unwrap()).unwrap());
        Picture::read(&path).unwrap().write(&again, &Encoding::default()).unwrap();
        let straight = image::open(&again).unwrap().to_rgba8().into_raw();
        assert_eq!(straight, [199, 100, 50, 128, 100, 50, 25, 0]);
        // Straight as it is now, it stays so.
        assert_eq!(Picture::read(&again).unwrap().samples.bytes(), straight);
    }

    #[test]
    fn a_big_tiff_is_known_by_its_content() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.tif", "a", "a.png"] {
            let path = dir.path().join(name);
            write_premultiplied(&path, TiffEncoder::new_big(File::create(&path).unwrap()).unwrap());
            let picture = Picture::read(&path).unwrap();
            assert_eq!((picture.size(), picture.format), ((1, 2), Format::Tiff), "{name}");
        }
    }

    #[test]
    fn what_is_not_read_is_refused_with_its_cause() {
        let dir = tempfile::tempdir().unwrap();
        let cmyk = dir.path().join("cmyk.tif");
        let mut encoder = TiffEncoder::new(File::create(&cmyk).unwrap()).unwrap();
        encoder.write_image::<tiff::encoder::colortype::CMYK8>(1, 1, &[0; 4]).unwrap();
        let integers = dir.path().join("integers.tif");
        let mut encoder = TiffEncoder::new(File::create(&integers).unwrap()).unwrap();
        encoder.write_image::<tiff::encoder::colortype::RGB32>(1, 1, &[1; 3]).unwrap();
        let extra = dir.path().join("extra.tif");
        let mut encoder = TiffEncoder::new(File::create(&extra).unwrap()).unwrap();
        let mut image = encoder.new_image::<RGB8>(1, 1).unwrap();
        image.extra_samples(&[ExtraSamples::Unspecified]).unwrap();
        image.write_data(&[1; 4]).unwrap();
        // Grey and a second band, as microscopes write it.
        let band = dir.path().join("band.tif");
        let mut encoder = TiffEncoder::new(File::create(&band).unwrap()).unwrap();
        let mut image = encoder.new_image::<Gray8>(1, 1).unwrap();
        image.extra_samples(&[ExtraSamples::Unspecified]).unwrap();
        image.write_data(&[1; 2]).unwrap();
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/picture");
        for (path, cause) in [
            (cmyk, "CMYK"),
            (integers, "32-bit integers"),
            (extra, "4 channels"),
            (band, "2 channels, 1 of them of unknown meaning"),
            (corpus.join("cmyk.jpg"), "CMYK"),
            (corpus.join("animated.png"), "more than one image"),
            (corpus.join("animated.webp"), "more than one image"),
        ] {
            let error = Picture::read(&path).unwrap_err().to_string();
            assert!(error.contains(cause), "{error}");
        }
        let sparse = dir.path().join("sparse.jpg");
        let file = File::create(&sparse).unwrap();
        std::fs::copy(corpus.join("good-colour.jpg"), &sparse).unwrap();
        file.set_len(3 << 30).unwrap();
        assert_eq!(Picture::header(&sparse).unwrap(), Header { bytes: 0, pixels: 0 });
        for (content, cause) in
            [("", "empty"), ("hello", "none of PNG"), ("GIF89a", "Gif files are not read")]
        {
            // Content tells, not the name.
            let path = dir.path().join("a.png");
            std::fs::write(&path, content).unwrap();
            let error = Picture::read(&path).unwrap_err().to_string();
            assert!(error.contains(cause), "{error}");
        }
    }

    /// A grey TIFF of floats in one tile.
    fn tiled(width: u16, height: u16, tile: u16) -> Vec<u8> {
        // Fields: tag, type (SHORT or LONG), value. Grey floats.
        let fields: [(u16, u16, u32); 11] = [
            (256, 3, width.into()),
            (257, 3, height.into()),
            (258, 3, 32),
            (259, 3, 1),
            (262, 3, 1),
            (277, 3, 1),
            (322, 3, tile.into()),
            (323, 3, tile.into()),
            (324, 4, 8 + 2 + 11 * 12 + 4),
            (325, 4, 4 * u32::from(tile).pow(2)),
            (339, 3, 3),
        ];
        let mut file = b"II*\0\x08\0\0\0".to_vec();
        file.extend((fields.len() as u16).to_le_bytes());
        for (tag, kind, value) in fields {
            file.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
            file.extend([1u32.to_le_bytes(), value.to_le_bytes()].concat());
        }
        file.extend([0; 4]);
        file.extend(std::iter::repeat_n(0.5f32.to_le_bytes(), usize::from(tile).pow(2)).flatten());
        file
    }

    #[test]
    fn a_tile_may_be_larger_than_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tif");
        std::fs::write(&path, tiled(600, 500, 1024)).unwrap();
        let picture = Picture::read(&path).unwrap();
        assert_eq!(picture.size(), (500, 600));
        assert!(picture.pixels().iter().all(|&v| v == 0.5));
    }

    /// More than the TIFF reader takes unasked.
    #[test]
    fn a_large_grey_float_in_one_strip_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tif");
        let (width, height) = (6000, 5700);
        let mut encoder = TiffEncoder::new(File::create(&path).unwrap()).unwrap();
        let mut image = encoder.new_image::<Gray32Float>(width, height).unwrap();
        image.rows_per_strip(height).unwrap();
        image.write_data(&vec![0.5; (width * height) as usize]).unwrap();
        assert_eq!(Picture::read(&path).unwrap().size(), (5700, 6000));
    }

    /// A chunk of PNG: length, name, data, checksum.
    fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let checked = [name, data].concat();
        let checksum = crc32fast::hash(&checked).to_be_bytes();
        [&(data.len() as u32).to_be_bytes(), checked.as_slice(), &checksum].concat()
    }

    #[test]
    fn png_metadata_after_the_pixels_count_as_those_before() {
        // One field: turned by a quarter.
        const EXIF: &[u8] = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        const XMP: &str = "<x tiff:Orientation=\"6\"/>";
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        DynamicImage::new_rgb8(3, 2).save(&path).unwrap();
        let plain = std::fs::read(&path).unwrap();
        let xmp = chunk(b"iTXt", format!("XML:com.adobe.xmp\0\0\0\0\0{XMP}").as_bytes());
        // After the header, and before the end.
        for place in [33, plain.len() - 12] {
            let with = |chunks: &[u8]| [&plain[..place], chunks, &plain[place..]].concat();
            std::fs::write(&path, with(&[chunk(b"eXIf", EXIF), xmp.clone()].concat())).unwrap();
            let picture = Picture::read(&path).unwrap();
            assert_eq!(picture.size(), (3, 2), "chunks at {place}");
            let upright = XMP.replace('6', "1");
            assert_eq!(picture.metadata.xmp.as_deref(), Some(upright.as_bytes()), "chunks at {place}");
            // Pixels that only XMP calls turned are not turned, and it still says so.
            std::fs::write(&path, with(&xmp)).unwrap();
            let picture = Picture::read(&path).unwrap();
            assert_eq!((picture.size(), picture.metadata.xmp.as_deref()), ((2, 3), Some(XMP.as_bytes())));
            // What is damaged is left out.
            let mut damaged = chunk(b"eXIf", EXIF);
            damaged[26] ^= 2;
            std::fs::write(&path, with(&damaged)).unwrap();
            let picture = Picture::read(&path).unwrap();
            assert_eq!((picture.size(), picture.metadata.exif), ((2, 3), None), "chunks at {place}");
        }
    }

    /// Any number of fields of EXIF may share the bytes of one value, and a colour profile shrinks by a thousand.
    #[test]
    fn what_is_beside_the_pixels_takes_bounded_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        DynamicImage::new_rgb8(3, 2).save(&path).unwrap();
        let plain = std::fs::read(&path).unwrap();
        let with = |chunks: Vec<u8>| [&plain[..33], &chunks, &plain[33..]].concat();

        const FIELDS: u16 = 60_000;
        const LENGTH: usize = 500_000;
        let mut exif = b"II*\0\x08\0\0\0".to_vec();
        exif.extend(FIELDS.to_le_bytes());
        let start = exif.len() as u32 + 12 * u32::from(FIELDS) + 4;
        for _ in 0..FIELDS {
            // UserComment: of no type, this long, there.
            exif.extend([0x86, 0x92, 7, 0]);
            exif.extend([(LENGTH as u32).to_le_bytes(), start.to_le_bytes()].concat());
        }
        exif.extend(vec![0; 4 + LENGTH]);
        std::fs::write(&path, with(chunk(b"eXIf", &exif))).unwrap();
        let target = dir.path().join("a.tif");
        Picture::read(&path).unwrap().write(&target, &as_format(Format::Tiff)).unwrap();
        // 30 GB of values, of which no more than 16 MiB are copied.
        assert!(std::fs::metadata(&target).unwrap().len() < 1 << 25);

        let mut info = png::Info::with_size(1, 1);
        info.icc_profile = Some(vec![0; 200 << 20].into());
        let mut writer =
            png::Encoder::with_info(File::create(&path).unwrap(), info).unwrap().write_header().unwrap();
        writer.write_image_data(&[7]).unwrap();
        writer.finish().unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < 1 << 20);
        // Left out, and not held.
        assert_eq!(Picture::read(&path).unwrap().metadata.profile, None);
    }

    #[test]
    fn what_a_format_cannot_hold_is_known_before_it_is_written() {
        let wide = |width: usize| Picture::from_pixels(Array3::zeros((3, 1, width)).view());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for (format, width, fits) in [
            (Format::Webp, 16_384, true),
            (Format::Webp, 16_385, false),
            (Format::Jpeg, 65_535, true),
            (Format::Jpeg, 65_536, false),
            (Format::Png, 65_536, true),
        ] {
            let picture = wide(width);
            assert_eq!(picture.ensure_fits(&as_format(format)).is_ok(), fits, "{format:?}, {width}");
            // What is said to fit can be written.
            assert_eq!(picture.write(&path, &as_format(format)).is_ok(), fits, "{format:?}, {width}");
        }
    }

    #[test]
    fn transparency_is_not_lost_silently() {
        let image = DynamicImage::new_rgba8(3, 3);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        image.save(&path).unwrap();
        let target = dir.path().join("a.jpg");
        let picture = Picture::read(&path).unwrap();
        assert!(picture.write(&target, &as_format(Format::Jpeg)).is_err());
        assert!(!target.exists());
        picture.write(&target, &as_format(Format::Tiff)).unwrap();
    }

    #[test]
    fn an_image_is_resized_from_its_central_square() {
        let pixels = Array3::from_shape_fn((3, 8, 16), |(c, _, x)| {
            // Beyond [0, 1] too, as in float files.
            if (4..12).contains(&x) { c as f32 - 0.5 } else { 9.0 }
        });
        let picture = Picture::from_pixels(pixels.view());
        let small = picture.resized(4);
        assert!(small.indexed_iter().all(|((c, _, _), v)| (v - c as f32 + 0.5).abs() < 1e-6));
    }

    #[test]
    fn stray_bytes_between_the_segments_of_a_jpeg_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jpg");
        DynamicImage::new_rgb8(16, 8).save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        // After the first segment: its marker, and its length.
        let end = 4 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
        std::fs::write(&path, [&bytes[..end], &[0, 7], &bytes[end..]].concat()).unwrap();
        assert_eq!(Picture::read(&path).unwrap().size(), (8, 16));
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
