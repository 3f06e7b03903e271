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
    /// Leaves out the thumbnail, which shows the noisy image as it was stored.
    pub(super) fn leave_out_thumbnail(&mut self) {
        if let Some(exif) = &mut self.exif {
            erase_thumbnail(exif);
        }
    }

    /// Says that the pixels are upright, which they are once [`super::decode`] has turned them.
    pub(super) fn set_upright(&mut self) {
        if let Some(exif) = &mut self.exif {
            let _ = Orientation::remove_from_exif_chunk(exif);
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

/// Ends the chain of directories after the first one, since the second describes the thumbnail, and blanks the
/// thumbnail's bytes.
fn erase_thumbnail(exif: &mut [u8]) {
    let little = exif.starts_with(b"II*\0");
    if !little && !exif.starts_with(b"MM\0*") {
        return;
    }
    let number = |exif: &[u8], at: usize, length: usize| -> Option<usize> {
        let bytes = exif.get(at..at.checked_add(length)?)?.iter();
        let join = |n: usize, b: &u8| n << 8 | usize::from(*b);
        Some(if little { bytes.rev().fold(0, join) } else { bytes.fold(0, join) })
    };
    let link = |exif: &[u8]| -> Option<usize> {
        let directory = number(exif, 4, 4)?;
        Some(directory + 2 + 12 * number(exif, directory, 2)?)
    };
    let Some(link) = link(exif) else { return };
    // Tags of the offset and the length: of a JPEG file, and of uncompressed pixels in one strip.
    const PLACES: [(usize, usize); 2] = [(0x201, 0x202), (0x111, 0x117)];
    const SHORT: usize = 3;
    let thumbnail = |exif: &[u8], (offset, length): (usize, usize)| -> Option<(usize, usize)> {
        let second = number(exif, link, 4).filter(|second| *second > 0)?;
        let entries = (0..number(exif, second, 2)?).map(|i| second + 2 + 12 * i);
        let value = |tag| -> Option<usize> {
            let entry = entries.clone().find(|at| number(exif, *at, 2) == Some(tag))?;
            number(exif, entry + 8, if number(exif, entry + 2, 2)? == SHORT { 2 } else { 4 })
        };
        Some((value(offset)?, value(length)?))
    };
    for place in PLACES {
        if let Some((start, length)) = thumbnail(exif, place)
            && let Some(bytes) = exif.get_mut(start..start.saturating_add(length))
        {
            bytes.fill(0);
        }
    }
    if let Some(link) = exif.get_mut(link..link + 4) {
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

    /// Two directories in both byte orders: the orientation, and a thumbnail, which are the last bytes. Its length is a
    /// LONG or a SHORT.
    fn exif(little: bool, tags: [u16; 2], short: bool) -> Vec<u8> {
        let two = |n: u16| if little { n.to_le_bytes() } else { n.to_be_bytes() };
        let four = |n: u32| if little { n.to_le_bytes() } else { n.to_be_bytes() };
        let mut exif = if little { b"II*\0".to_vec() } else { b"MM\0*".to_vec() };
        exif.extend([four(8).as_slice(), &two(1), &two(0x112), &two(3), &four(1), &two(6), &two(0)].concat());
        exif.extend([four(26).as_slice(), &two(2)].concat());
        exif.extend([two(tags[0]).as_slice(), &two(4), &four(1), &four(56)].concat());
        let length = THUMBNAIL.len() as u16;
        let value = if short { [two(length), two(0)].concat() } else { four(length.into()).to_vec() };
        exif.extend([two(tags[1]).as_slice(), &two(if short { 3 } else { 4 }), &four(1), &value].concat());
        exif.extend(four(0));
        assert_eq!(exif.len(), 56);
        exif.extend(THUMBNAIL);
        exif
    }

    const THUMBNAIL: &[u8] = b"a small copy";

    #[test]
    fn pixels_that_were_turned_are_said_to_be_upright() {
        for little in [true, false] {
            let exif = Some(exif(little, [0x201, 0x202], false));
            let mut metadata = Metadata { exif, ..Metadata::default() };
            let orientation = |m: &Metadata| Orientation::from_exif_chunk(m.exif.as_ref().unwrap());
            assert_eq!(orientation(&metadata), Some(Orientation::Rotate90));
            metadata.set_upright();
            assert_eq!(orientation(&metadata), Some(Orientation::NoTransforms));
        }
    }

    #[test]
    fn the_thumbnail_is_gone() {
        let kinds = [([0x201, 0x202], false), ([0x201, 0x202], true), ([0x111, 0x117], true)];
        for (little, (tags, short)) in [true, false].into_iter().flat_map(|l| kinds.map(|kind| (l, kind))) {
            let mut metadata = Metadata { exif: Some(exif(little, tags, short)), ..Metadata::default() };
            metadata.leave_out_thumbnail();
            let exif = metadata.exif.unwrap();
            assert_eq!(exif[22..26], [0; 4], "it is still linked");
            assert_eq!(exif[56..], [0; THUMBNAIL.len()], "its bytes are still there");
            assert_eq!(Orientation::from_exif_chunk(&exif), Some(Orientation::Rotate90));
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
        let whole = exif(true, [0x201, 0x202], false);
        for cut in 0..whole.len() {
            erase_thumbnail(&mut whole[..cut].to_vec());
        }
        // Offsets to the first directory, to the second, and to the thumbnail.
        for at in [4, 22, 36, 48] {
            let mut far = whole.clone();
            far[at..at + 4].fill(0xFF);
            erase_thumbnail(&mut far);
        }
    }
}
