//! What `image info` prints for people: the lines that scripts know from qemu-img.
#![allow(clippy::print_stdout, reason = "this is where the program prints")]

use anstream::println;
use qcow2::{BitmapInfo, EncryptInfo, ImageInfo};

use super::escape;
use super::image::snapshots;
use crate::commands::image::Description;

/// What an image is, and, where there are several, those behind it.
pub(crate) fn info(chain: &[Description]) {
    for (index, described) in chain.iter().enumerate() {
        if index > 0 {
            println!();
        }
        describe(described);
    }
}

fn describe(described: &Description) {
    println!("image: {}", escape(&described.filename));
    println!("file format: {}", if described.qcow2.is_some() { "qcow2" } else { "raw" });
    println!("virtual size: {} ({} bytes)", size(described.virtual_size), described.virtual_size);
    println!("disk size: {}", size(described.actual_size));
    if let Some(info) = &described.qcow2 {
        if info.encrypt.is_some() {
            println!("encrypted: yes");
        }
        println!("cluster_size: {}", info.cluster_size);
        if info.dirty_flag {
            println!("cleanly shut down: no");
        }
        if let Some(name) = &info.backing_filename {
            let path = described.backing_path.as_ref().filter(|path| *path != name);
            let path = path.map_or_else(String::new, |path| format!(" (actual path: {})", escape(path)));
            println!("backing file: {}{path}", escape(name));
        }
        if let Some(format) = &info.backing_filename_format {
            println!("backing file format: {}", escape(format));
        }
        snapshots(&info.snapshots);
        println!("Format specific information:");
        specific(info);
    }
    println!("Child node '/file':");
    println!("    filename: {}", escape(&described.filename));
    println!("    protocol type: file");
    println!("    file length: {} ({} bytes)", size(described.file_len), described.file_len);
    println!("    disk size: {}", size(described.actual_size));
}

fn specific(info: &ImageInfo) {
    let is_new = info.version >= 3;
    println!("    compat: {}", if is_new { "1.1" } else { "0.10" });
    println!("    compression type: {}", format!("{:?}", info.compression_type).to_lowercase());
    if is_new {
        println!("    lazy refcounts: {}", info.lazy_refcounts);
        bitmaps(&info.bitmaps);
    }
    println!("    refcount bits: {}", info.refcount_bits);
    if let Some(name) = info.data_file.as_ref().filter(|_| is_new) {
        println!("    data file: {}", escape(name));
    }
    if let Some(encrypt) = &info.encrypt {
        println!("    encrypt:");
        encryption(encrypt);
    }
    if info.data_file.is_some() && is_new {
        println!("    data file raw: {}", info.data_file_raw);
    }
    if is_new {
        println!("    corrupt: {}", info.corrupt);
        println!("    extended l2: {}", info.extended_l2);
    }
}

fn bitmaps(bitmaps: &[BitmapInfo]) {
    if bitmaps.is_empty() {
        return;
    }
    println!("    bitmaps:");
    for (index, bitmap) in bitmaps.iter().enumerate() {
        println!("        [{index}]:");
        println!("            flags:");
        for (index, flag) in bitmap.flags.iter().enumerate() {
            println!("                [{index}]: {flag}");
        }
        println!("            name: {}", escape(&bitmap.name));
        println!("            granularity: {}", bitmap.granularity);
    }
}

fn encryption(encrypt: &EncryptInfo) {
    let line = |name: &str, value: &str| println!("        {name}: {}", escape(value));
    line("ivgen alg", &encrypt.ivgen_alg);
    line("detached header", if encrypt.detached_header { "true" } else { "false" });
    line("hash alg", &encrypt.hash_alg);
    line("cipher alg", &encrypt.cipher_alg);
    line("uuid", &encrypt.uuid);
    if let Some(hash) = &encrypt.ivgen_hash_alg {
        line("ivgen hash alg", hash);
    }
    line("format", encrypt.format);
    line("cipher mode", &encrypt.cipher_mode);
    println!("        slots:");
    for (index, slot) in encrypt.slots.iter().enumerate() {
        println!("            [{index}]:");
        println!("                active: {}", slot.active);
        if let Some(iterations) = slot.iters {
            println!("                iters: {iterations}");
        }
        println!("                key offset: {}", slot.key_offset);
        if let Some(stripes) = slot.stripes {
            println!("                stripes: {stripes}");
        }
    }
    line("payload offset", &encrypt.payload_offset.to_string());
    line("master key iters", &encrypt.master_key_iters.to_string());
}

/// A number of bytes in three digits: below a thousand of the largest unit that allows it, zeros at the end left out.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else if value >= 1.0 {
        2
    } else {
        3
    };
    let text = format!("{value:.decimals$}");
    let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{} {}", if text.is_empty() { "0" } else { text }, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (1000, "0.977 KiB"),
            (1024, "1 KiB"),
            (200_704, "196 KiB"),
            (1_966_080, "1.88 MiB"),
            (10 << 30, "10 GiB"),
            ((10 << 30) + (1 << 28), "10.2 GiB"),
            (1 << 62, "4 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
