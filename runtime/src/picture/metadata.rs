//! What an image file says beside its pixels: colour profile, EXIF, XMP.

use image::metadata::Orientation;

/// Carried from the file that was read to the one that is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Metadata {
    /// ICC colour profile.
    pub(super) profile: Option<Vec<u8>>,
    /// EXIF, from its byte order mark on.
    pub(super) exif: Option<Vec<u8>>,
    /// XMP packet, UTF-8.
    pub(super) xmp: Option<Vec<u8>>,
}

impl Metadata {
    /// Says that the pixels are upright, which they are once [`super::decode`] has turned them, and leaves
    /// out the thumbnail, which shows the noisy image as it was stored.
    pub(super) fn set_upright(&mut self) {
        if let Some(exif) = &mut self.exif {
            let _ = Orientation::remove_from_exif_chunk(exif);
            unlink_thumbnail(exif);
        }
        if let Some(xmp) = &mut self.xmp {
            set_xmp_upright(xmp);
        }
    }

    /// The colour profile, if it is one for the samples that are written. One of another colour space (of
    /// CMYK, of grey where colour is written) would make nonsense of them.
    pub(super) fn profile_for(&self, color: bool) -> Option<&Vec<u8>> {
        let space: &[u8] = if color { b"RGB " } else { b"GRAY" };
        // The header names the colour space.
        self.profile.as_ref().filter(|profile| profile.get(16..20) == Some(space))
    }
}

/// Ends the chain of directories after the first one: the second describes the thumbnail.
fn unlink_thumbnail(exif: &mut [u8]) {
    let little = exif.starts_with(b"II*\0");
    if !little && !exif.starts_with(b"MM\0*") {
        return;
    }
    let number = |range: std::ops::Range<usize>| -> Option<usize> {
        let bytes = exif.get(range)?.iter();
        let join = |n: usize, b: &u8| n << 8 | usize::from(*b);
        Some(if little { bytes.rev().fold(0, join) } else { bytes.fold(0, join) })
    };
    let Some(directory) = number(4..8) else { return };
    let Some(entries) = number(directory..directory.saturating_add(2)) else { return };
    let next = directory + 2 + 12 * entries;
    if let Some(link) = exif.get_mut(next..next + 4) {
        link.fill(0);
    }
}

/// XMP repeats the orientation of EXIF, as an attribute or as an element.
fn set_xmp_upright(xmp: &mut [u8]) {
    const NAME: &[u8] = b"tiff:Orientation";
    let mut at = 0;
    while let Some(found) = xmp[at..].windows(NAME.len()).position(|window| window == NAME) {
        at += found + NAME.len();
        let value = xmp[at..].iter().position(|b| !matches!(b, b'=' | b'"' | b'\'' | b'>' | b' '));
        if let Some(digit) = value.and_then(|i| xmp.get_mut(at + i)).filter(|b| b.is_ascii_digit()) {
            *digit = b'1';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two directories in both byte orders: the orientation, and a thumbnail.
    fn exif(little: bool) -> Vec<u8> {
        let two = |n: u16| if little { n.to_le_bytes() } else { n.to_be_bytes() };
        let four = |n: u32| if little { n.to_le_bytes() } else { n.to_be_bytes() };
        let mut exif = if little { b"II*\0".to_vec() } else { b"MM\0*".to_vec() };
        exif.extend(four(8));
        for (tag, next) in [(0x112, 26), (0x103, 0)] {
            exif.extend([two(1), two(tag), two(3)].concat());
            exif.extend([four(1).as_slice(), &two(6), &two(0), &four(next)].concat());
        }
        exif
    }

    #[test]
    fn pixels_that_were_turned_are_said_to_be_upright() {
        for little in [true, false] {
            let mut metadata = Metadata { exif: Some(exif(little)), ..Metadata::default() };
            let orientation = |m: &Metadata| Orientation::from_exif_chunk(m.exif.as_ref().unwrap());
            assert_eq!(orientation(&metadata), Some(Orientation::Rotate90));
            metadata.set_upright();
            assert_eq!(orientation(&metadata), Some(Orientation::NoTransforms));
            assert_eq!(metadata.exif.unwrap()[22..26], [0; 4], "the thumbnail is still linked");
        }
    }

    #[test]
    fn xmp_says_so_too() {
        for (before, after) in [
            ("<a tiff:Orientation=\"6\"/>", "<a tiff:Orientation=\"1\"/>"),
            ("<tiff:Orientation>8</tiff:Orientation>", "<tiff:Orientation>1</tiff:Orientation>"),
            ("tiff:Orientation", "tiff:Orientation"),
        ] {
            let mut xmp = before.as_bytes().to_vec();
            set_xmp_upright(&mut xmp);
            assert_eq!(String::from_utf8(xmp).unwrap(), after);
        }
    }

    #[test]
    fn damaged_exif_is_left_alone() {
        let whole = exif(true);
        for cut in 0..whole.len() {
            unlink_thumbnail(&mut whole[..cut].to_vec());
        }
        let mut far = whole;
        far[4..8].fill(0xFF);
        unlink_thumbnail(&mut far);
    }
}
