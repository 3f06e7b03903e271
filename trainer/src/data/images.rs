//! A set of images, with or without classes, decoded on first use and kept while memory allows.

use anyhow::{Context, Result, bail, ensure};
use gradresnet_models::Spec;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Decoded images kept in memory, in bytes; what does not fit is decoded again at each use.
const CACHE_BYTES: usize = 4 << 30;

/// Largest image that is decoded, in pixels on a side and bytes.
const MAX_SIDE: u32 = 1 << 15;
const MAX_DECODED_BYTES: u64 = 1 << 30;

const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];

/// An 8-bit RGB image, rows from the top, channels interleaved.
#[derive(Debug)]
pub struct Pixels {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `height · width · 3` bytes.
    pub rgb: Vec<u8>,
}

/// Which half of a data set that comes in two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// `train/` or `data_batch_*.bin`.
    Train,
    /// `test/` or `test_batch.bin`.
    Test,
}

/// A set of images.
#[derive(Debug)]
pub struct Images {
    entries: Vec<Entry>,
    classes: Vec<String>,
    /// Bytes that the halves of a set take in memory together.
    cached: Arc<AtomicUsize>,
}

/// What [`Images::listing`] tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// How many images.
    pub count: usize,
    /// CRC-32C of a line for each, its class and its file's name.
    pub checksum: u32,
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    class: Option<usize>,
    pixels: OnceLock<Arc<Pixels>>,
}

impl Images {
    /// Opens `dir`, which is one of:
    /// - the official binary CIFAR-10 (`data_batch_1.bin` … `test_batch.bin`, `batches.meta.txt`);
    /// - a folder with `train` and `test` below it, of which `split` takes one;
    /// - a folder of class folders, whose names in alphabetical order are the classes;
    /// - a flat folder of photographs.
    ///
    /// # Errors
    /// If it is none of these, or has no image in it.
    pub fn open(dir: &Path, split: Split) -> Result<Images> {
        ensure!(dir.is_dir(), "{}: not a folder", dir.display());
        if dir.join("test_batch.bin").is_file() {
            return cifar_binary(dir, split);
        }
        let half = dir.join(match split {
            Split::Train => "train",
            Split::Test => "test",
        });
        if dir.join("train").is_dir() && dir.join("test").is_dir() {
            return Images::open(&half, split);
        }
        let images = folder(dir)?;
        ensure!(
            !images.is_empty(),
            "{}: no PNG or JPEG image in it, nor in folders one level below",
            dir.display()
        );
        Ok(images)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names of the classes, in the order of their numbers; empty without classes.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Whether the classes are those of a network, all of them and no others: only then do they count.
    pub fn have_classes_of(&self, spec: &Spec) -> bool {
        !spec.classes.is_empty() && self.classes == spec.classes
    }

    /// Class of image `index`.
    pub fn class(&self, index: usize) -> Option<usize> {
        self.entries[index].class
    }

    /// Where image `index` came from.
    pub fn path(&self, index: usize) -> &Path {
        &self.entries[index].path
    }

    /// Image `index`, decoded.
    ///
    /// # Errors
    /// If the file cannot be read or is not an image.
    pub fn pixels(&self, index: usize) -> Result<Arc<Pixels>> {
        let entry = &self.entries[index];
        if let Some(pixels) = entry.pixels.get() {
            return Ok(pixels.clone());
        }
        let pixels = Arc::new(decode(&entry.path)?);
        let size = pixels.rgb.len();
        let fits = self.cached.fetch_add(size, Ordering::Relaxed) + size <= CACHE_BYTES;
        // Another thread may have decoded it meanwhile.
        if !fits || entry.pixels.set(pixels.clone()).is_err() {
            self.cached.fetch_sub(size, Ordering::Relaxed);
        }
        Ok(pixels)
    }

    /// What tells this set from another: how many images, and a checksum of their classes and names.
    pub fn listing(&self) -> Listing {
        let checksum = self.entries.iter().fold(0, |checksum, entry| {
            let class = entry.class.map_or("", |class| &self.classes[class]);
            let name = entry.path.file_name().unwrap_or_default().to_string_lossy();
            crc32c::crc32c_append(checksum, format!("{class}/{name}\n").as_bytes())
        });
        Listing { count: self.len(), checksum }
    }

    /// Holds out every `n`-th image, where `1/n` is about `fraction`: the images to train on, and those
    /// to validate on.
    pub fn hold_out(self, fraction: f64) -> (Images, Images) {
        let every = if fraction > 0.0 { (1.0 / fraction).round().max(2.0) as usize } else { usize::MAX };
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        for (i, entry) in self.entries.into_iter().enumerate() {
            if i % every == every - 1 { held_out.push(entry) } else { train.push(entry) }
        }
        let set = |entries| Images { entries, classes: self.classes.clone(), cached: self.cached.clone() };
        (set(train), set(held_out))
    }
}

/// Decodes one image file to 8-bit RGB, upright as its EXIF says, as `gradresnet` shows it to a network.
pub fn decode(path: &Path) -> Result<Pixels> {
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    let mut reader = image::ImageReader::open(path)
        .and_then(|r| r.with_guessed_format())
        .with_context(|| format!("{}: cannot be read", path.display()))?;
    reader.limits(limits.clone());
    let upright = || -> image::ImageResult<DynamicImage> {
        let mut decoder = reader.into_decoder()?;
        limits.reserve(decoder.total_bytes())?;
        // Damaged metadata must not cost a sound image.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok(image)
    };
    let image = upright().with_context(|| format!("{}: not a readable image", path.display()))?;
    let rgb = image.into_rgb8();
    Ok(Pixels { height: rgb.height() as usize, width: rgb.width() as usize, rgb: rgb.into_raw() })
}

fn folder(dir: &Path) -> Result<Images> {
    let mut entries = Vec::new();
    let mut classes = Vec::new();
    for path in sorted(dir)? {
        if path.is_dir() {
            let files: Vec<_> = sorted(&path)?.into_iter().filter(|p| is_image(p)).collect();
            if files.is_empty() {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let class = Some(classes.len());
            classes.push(name);
            entries.extend(files.into_iter().map(|path| Entry { path, class, pixels: OnceLock::new() }));
        } else if is_image(&path) {
            entries.push(Entry { path, class: None, pixels: OnceLock::new() });
        }
    }
    if !classes.is_empty() && entries.iter().any(|e| e.class.is_none()) {
        bail!("{}: images both in class folders and beside them; move them apart", dir.display());
    }
    Ok(Images { entries, classes, cached: Arc::default() })
}

fn sorted(dir: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
    };
    let mut paths = read().with_context(|| format!("{}: cannot be listed", dir.display()))?;
    paths.sort();
    Ok(paths)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    EXTENSIONS.contains(&extension.as_str())
}

/// The binary version of CIFAR-10: records of a label byte and 3 planes of 32×32 bytes.
fn cifar_binary(dir: &Path, split: Split) -> Result<Images> {
    const SIDE: usize = 32;
    const PLANE: usize = SIDE * SIDE;
    const RECORD: usize = 1 + 3 * PLANE;
    let meta = dir.join("batches.meta.txt");
    let classes: Vec<String> = std::fs::read_to_string(&meta)
        .with_context(|| format!("{}: cannot be read", meta.display()))?
        .lines()
        .map(|l| l.trim().to_string())
        .filter(|l| !l.is_empty())
        .collect();
    let files = match split {
        Split::Train => (1..=5).map(|n| format!("data_batch_{n}.bin")).collect(),
        Split::Test => vec!["test_batch.bin".to_string()],
    };
    let mut entries = Vec::new();
    for file in files {
        let path = dir.join(file);
        let bytes = std::fs::read(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
        ensure!(
            !bytes.is_empty() && bytes.len().is_multiple_of(RECORD),
            "{}: {} bytes, which is no multiple of a record's {RECORD}",
            path.display(),
            bytes.len()
        );
        for (number, record) in bytes.chunks_exact(RECORD).enumerate() {
            let class = usize::from(record[0]);
            ensure!(
                class < classes.len(),
                "{}: record {number} has class {class}, and {} lists {}",
                path.display(),
                meta.display(),
                classes.len()
            );
            let planes = &record[1..];
            let rgb =
                (0..PLANE).flat_map(|i| [planes[i], planes[PLANE + i], planes[2 * PLANE + i]]).collect();
            let pixels = OnceLock::from(Arc::new(Pixels { height: SIDE, width: SIDE, rgb }));
            entries.push(Entry { path: path.join(number.to_string()), class: Some(class), pixels });
        }
    }
    Ok(Images { entries, classes, cached: Arc::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_png(path: &Path, value: u8) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(4, 3, image::Rgb([value, 0, 255])).save(path).unwrap();
    }

    #[test]
    fn class_folders_number_their_classes_in_alphabetical_order() {
        let dir = tempfile::tempdir().unwrap();
        for (path, value) in [("train/dog/1.png", 1), ("train/cat/9.png", 2), ("test/cat/3.png", 3)] {
            write_png(&dir.path().join(path), value);
        }
        let train = Images::open(dir.path(), Split::Train).unwrap();
        assert_eq!(train.classes(), ["cat", "dog"]);
        let found: Vec<_> = (0..2).map(|i| (train.class(i), train.pixels(i).unwrap().rgb[0])).collect();
        assert_eq!(found, [(Some(0), 2), (Some(1), 1)]);
        let test = Images::open(dir.path(), Split::Test).unwrap();
        assert_eq!((test.len(), test.pixels(0).unwrap().rgb[0]), (1, 3));
    }

    #[test]
    fn binary_cifar_interleaves_its_planes_and_rejects_a_torn_record() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = vec![1u8];
        for value in [10, 20, 30] {
            record.extend(std::iter::repeat_n(value, 1024));
        }
        std::fs::write(dir.path().join("batches.meta.txt"), "a\nb\n\n").unwrap();
        std::fs::write(dir.path().join("test_batch.bin"), record.repeat(2)).unwrap();
        let images = Images::open(dir.path(), Split::Test).unwrap();
        assert_eq!((images.len(), images.class(1)), (2, Some(1)));
        assert_eq!(images.pixels(1).unwrap().rgb[3..6], [10, 20, 30]);

        record.pop();
        std::fs::write(dir.path().join("test_batch.bin"), &record).unwrap();
        let error = Images::open(dir.path(), Split::Test).unwrap_err().to_string();
        assert!(error.contains("test_batch.bin") && error.contains("3073"), "{error}");
    }

    /// A photograph taken with the camera held sideways, stored as two by one pixels.
    #[test]
    fn images_are_upright() {
        use image::ImageEncoder;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jpg");
        let mut encoder = image::codecs::jpeg::JpegEncoder::new(std::fs::File::create(&path).unwrap());
        // A TIFF directory of one entry: orientation 6, to be turned a quarter clockwise.
        let header = [b'I', b'I', 42, 0, 8, 0, 0, 0, 1, 0];
        let entry = [0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0];
        encoder.set_exif_metadata([&header[..], &entry].concat()).unwrap();
        encoder.write_image(&[0; 6], 2, 1, image::ExtendedColorType::Rgb8).unwrap();
        let pixels = decode(&path).unwrap();
        assert_eq!((pixels.height, pixels.width), (2, 1));
    }

    #[test]
    fn a_listing_tells_sets_apart() {
        let dir = tempfile::tempdir().unwrap();
        let listing = || Images::open(dir.path(), Split::Train).unwrap().listing();
        write_png(&dir.path().join("cat/1.png"), 1);
        write_png(&dir.path().join("dog/1.png"), 1);
        let first = listing();
        assert_eq!((first.count, listing()), (2, first.clone()));
        std::fs::rename(dir.path().join("dog/1.png"), dir.path().join("dog/2.png")).unwrap();
        assert_ne!(listing(), first);
        std::fs::rename(dir.path().join("dog/2.png"), dir.path().join("cat/2.png")).unwrap();
        assert_ne!(listing(), first);
    }

    #[test]
    fn held_out_images_are_not_trained_on() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..10 {
            write_png(&dir.path().join(format!("{i}.png")), i);
        }
        let (train, held_out) = Images::open(dir.path(), Split::Train).unwrap().hold_out(0.2);
        assert_eq!((train.len(), held_out.len()), (8, 2));
        assert!(held_out.path(0).ends_with("4.png") && held_out.path(1).ends_with("9.png"));
    }
}
