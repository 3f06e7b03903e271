//! What the image crate lacks for PNG: EXIF and XMP that stand after the pixels, and a bound on what is beside them.

use super::metadata::Metadata;
use image::Limits;
use std::fs::File;
use std::io::{BufReader, Read, Result};
use std::path::Path;

/// Memory that chunks beside the pixels may take, unpacked: a colour profile shrinks by up to a thousand.
const MAX_BESIDE: u64 = 1 << 27;
/// Largest chunk of EXIF or XMP after the pixels that is read.
const MAX_CHUNK: u32 = 1 << 24;
/// Bytes of a pixel of 16 bits with transparency.
const MAX_PIXEL_BYTES: u64 = 8;

/// How the XMP chunk begins: its keyword, neither compressed nor in any language.
const XMP: &[u8] = b"XML:com.adobe.xmp\0\0\0\0\0";

/// The height and the width that a file claims.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn size(path: &Path) -> Result<(usize, usize)> {
    let mut start = [0; 24];
    File::open(path)?.read_exact(&mut start)?;
    // The signature, the header's length and name, and then its width and height.
    let [.., a, b, c, d, e, f, g, h] = start;
    Ok((u32::from_be_bytes([e, f, g, h]) as usize, u32::from_be_bytes([a, b, c, d]) as usize))
}

/// The memory that a decoder may take beside the pixels: a few rows, and [`MAX_BESIDE`].
pub(super) fn limits(width: usize) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(4 * MAX_PIXEL_BYTES * width as u64 + MAX_BESIDE);
    limits
}

/// Adds EXIF and XMP that stand after the pixels, where there was none before them. It stops at the first damage, which
/// must not cost a sound image.
///
/// # Errors
/// If the file cannot be read, or ends early.
pub(super) fn add_late(path: &Path, metadata: &mut Metadata) -> Result<()> {
    let mut file = BufReader::new(File::open(path)?);
    file.seek_relative(8)?;
    let mut after = false;
    while metadata.exif.is_none() || metadata.xmp.is_none() {
        let mut head = [0; 8];
        file.read_exact(&mut head)?;
        let ([a, b, c, d, ..], name) = (head, &head[4..]);
        let length = u32::from_be_bytes([a, b, c, d]);
        match name {
            b"IEND" => break,
            b"IDAT" => after = true,
            b"eXIf" | b"iTXt" if after && length <= MAX_CHUNK => {
                let mut data = vec![0; length as usize];
                let mut checksum = [0; 4];
                file.read_exact(&mut data)?;
                file.read_exact(&mut checksum)?;
                let mut hasher = crc32fast::Hasher::new();
                hasher.update(name);
                hasher.update(&data);
                if hasher.finalize().to_be_bytes() != checksum {
                    break;
                }
                if name == b"eXIf" {
                    metadata.exif.get_or_insert(data);
                } else if let Some(xmp) = data.strip_prefix(XMP) {
                    metadata.xmp.get_or_insert_with(|| xmp.to_vec());
                }
                continue;
            }
            _ => {}
        }
        file.seek_relative(i64::from(length) + 4)?;
    }
    Ok(())
}
