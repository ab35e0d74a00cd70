//! What a directory on the file system promises.

use super::*;
use tempfile::TempDir;

fn data() -> (TempDir, DataDir) {
    let temp = tempfile::tempdir().unwrap();
    let data = DataDir::open(temp.path()).unwrap();
    (temp, data)
}

fn write(dir: &mut FsDir, name: &str, position: u64, bytes: &[u8]) {
    dir.write_at(name, position, &[IoSlice::new(bytes)])
        .unwrap();
}

fn contents(dir: &mut FsDir, name: &str) -> Vec<u8> {
    let mut buffer = vec![0xee; 1 << 20];
    let count = dir.read_at(name, 0, &mut buffer).unwrap();
    buffer.truncate(count);
    buffer
}

/// All that a handle can read.
fn through(file: &File) -> Vec<u8> {
    let mut buffer = vec![0; 100];
    let count = read_file(descriptor(file), 0, &mut buffer).unwrap();
    buffer.truncate(count);
    buffer
}

#[test]
fn files_are_listed_by_name_with_their_size() {
    let (temp, data) = data();
    let mut dir = data.dir("orders-0").unwrap();
    for (name, size) in [("b", 3), ("c", 0), ("a", 70_000)] {
        dir.create(name).unwrap();
        write(&mut dir, name, 0, &vec![1; size]);
    }
    std::fs::create_dir(temp.path().join("orders-0/d")).unwrap();
    std::fs::write(temp.path().join("orders-0/a.tmp"), "unfinished").unwrap();
    let expected = [("a", 70_000), ("b", 3), ("c", 0)].map(|(name, size)| (name.to_owned(), size));
    assert_eq!(dir.list().unwrap(), expected);
    assert_eq!(
        dir.list().unwrap(),
        expected,
        "listing leaves nothing behind"
    );
}

#[test]
fn a_file_is_created_once() {
    let (_temp, data) = data();
    let mut dir = data.dir("orders-0").unwrap();
    dir.create("a").unwrap();
    let error = dir.create("a").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(dir.open("b").unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_write_past_the_end_leaves_zeros() {
    let (_temp, data) = data();
    let mut dir = data.dir("orders-0").unwrap();
    dir.create("a").unwrap();
    write(&mut dir, "a", 3, b"end");
    assert_eq!(contents(&mut dir, "a"), b"\0\0\0end");
    dir.truncate("a", 4).unwrap();
    assert_eq!(contents(&mut dir, "a"), b"\0\0\0e");
    dir.truncate("a", 6).unwrap();
    assert_eq!(contents(&mut dir, "a"), b"\0\0\0e\0\0");
}

#[test]
fn more_slices_than_the_kernel_takes_are_written() {
    let (_temp, data) = data();
    let mut dir = data.dir("orders-0").unwrap();
    dir.create("a").unwrap();
    let bytes: Vec<u8> = (0..5000u32).map(|at| (at ^ (at >> 8)) as u8).collect();
    let slices: Vec<_> = bytes.chunks(2).map(IoSlice::new).collect();
    assert!(slices.len() > 2 * WRITE_SLICES_MAX);
    dir.write_at("a", 10, &slices).unwrap();
    assert_eq!(contents(&mut dir, "a")[10..], bytes);
    dir.write_at("a", 0, &[]).unwrap();
    dir.write_at("a", 0, &[IoSlice::new(b"")]).unwrap();
}

#[test]
fn a_short_write_goes_on_where_it_ended() {
    let slices = [&b"0123456"[..], b"", b"789abc", b"d", b"ef"].map(IoSlice::new);
    for most in 1..=17 {
        let mut file = b"abc".to_vec();
        let mut interrupted = false;
        write_all(3, &slices, |position, slices| {
            interrupted = !interrupted;
            if interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
            assert_eq!(position as usize, file.len());
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            let written = bytes.len().min(most);
            file.extend_from_slice(&bytes[..written]);
            Ok(written)
        })
        .unwrap();
        assert_eq!(file, b"abc0123456789abcdef", "at most {most} at once");
    }
    let full = write_all(0, &slices, |_, _| Ok(0)).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::WriteZero);
}

#[test]
fn replace_puts_whole_contents_in_place() {
    let (temp, data) = data();
    let mut dir = data.dir("orders-0").unwrap();
    dir.create("other").unwrap();
    dir.remove("other").unwrap();
    // What a crash in an earlier replace left behind.
    std::fs::write(
        temp.path().join("orders-0/state.tmp"),
        "longer than the new one",
    )
    .unwrap();
    dir.replace("state", b"first").unwrap();
    assert_eq!(contents(&mut dir, "state"), b"first");
    let before = dir.open("state").unwrap();
    dir.replace("state", b"2nd").unwrap();
    assert_eq!(contents(&mut dir, "state"), b"2nd");
    assert_eq!(
        through(&before),
        b"first",
        "a reader of the old contents is not disturbed"
    );
    assert_eq!(dir.list().unwrap(), [("state".to_owned(), 3)]);
    assert!(!temp.path().join("orders-0/state.tmp").exists());
}

#[test]
fn a_failed_replace_keeps_the_old_contents() {
    let (temp, data) = data();
    let mut dir = data.dir("orders-0").unwrap();
    dir.replace("state", b"old").unwrap();
    std::fs::create_dir(temp.path().join("orders-0/state.tmp")).unwrap();
    assert!(dir.replace("state", b"new").is_err());
    assert_eq!(contents(&mut dir, "state"), b"old");
}

#[test]
fn a_removed_file_stays_readable_through_its_handle() {
    let (_temp, data) = data();
    let mut dir = data.dir("orders-0").unwrap();
    dir.create("a").unwrap();
    write(&mut dir, "a", 0, b"kept");
    let file = dir.open("a").unwrap();
    dir.remove("a").unwrap();
    assert_eq!(dir.list().unwrap(), []);
    assert_eq!(through(&file), b"kept");
    // A new file of that name is another file.
    dir.create("a").unwrap();
    assert_eq!(contents(&mut dir, "a"), b"");
    dir.remove("a").unwrap();
    assert_eq!(dir.remove("a").unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn few_descriptors_are_kept_over_all_directories() {
    let (_temp, data) = data();
    let data = data.with_open_files_max(3);
    let mut dirs: Vec<FsDir> = (0..20)
        .map(|index| data.dir(&format!("orders-{index}")).unwrap())
        .collect();
    for round in 0..3u8 {
        for (index, dir) in dirs.iter_mut().enumerate() {
            if round == 0 {
                dir.create("a").unwrap();
            }
            write(dir, "a", u64::from(round), &[index as u8 + round]);
            assert!(data.open.borrow().count() <= 3);
        }
    }
    for (index, dir) in dirs.iter_mut().enumerate() {
        let index = index as u8;
        assert_eq!(contents(dir, "a"), [index, index + 1, index + 2]);
    }
    drop(dirs);
    assert_eq!(
        data.open.borrow().count(),
        0,
        "they go with their directories"
    );
}

#[test]
fn a_file_in_use_stays_open() {
    let (_temp, data) = data();
    let data = data.with_open_files_max(3);
    let mut busy = data.dir("orders-0").unwrap();
    busy.create("a").unwrap();
    let kept = busy.open("a").unwrap();
    let mut others = Vec::new();
    for index in 1..10 {
        let mut other = data.dir(&format!("orders-{index}")).unwrap();
        other.create("a").unwrap();
        other.open("a").unwrap();
        others.push(other);
        let again = busy.open("a").unwrap();
        assert!(std::ptr::eq(kept.kind(), again.kind()), "{index}");
    }
}

#[test]
fn a_directory_is_created_with_its_first_file() {
    let (temp, data) = data();
    let mut dir = data.dir("orders-0").unwrap();
    assert_eq!(dir.list().unwrap(), []);
    assert_eq!(dir.sync_dir().unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(!temp.path().join("orders-0").exists());
    dir.create("a").unwrap();
    dir.sync_dir().unwrap();
    assert_eq!(dir.list().unwrap(), [("a".to_owned(), 0)]);
    let mut other = data.dir("orders-1").unwrap();
    other.replace("state", b"new").unwrap();
    assert_eq!(contents(&mut other, "state"), b"new");
}

#[test]
fn errors_name_operation_and_file_and_keep_their_number() {
    let (_temp, data) = data();
    let mut dir = data.dir("orders-0").unwrap();
    let error = dir.sync("00.log").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert_eq!(errno(&error), Some(Errno::ENOENT as i32));
    let text = error.to_string();
    assert!(
        text.starts_with("sync orders-0/00.log: No such file"),
        "{text}"
    );
    assert_eq!(errno(&Errno::EIO.into()), Some(Errno::EIO as i32));
    assert_eq!(errno(&io::ErrorKind::WriteZero.into()), None);
}

#[test]
fn names_cannot_lead_elsewhere() {
    let (temp, data) = data();
    std::fs::write(temp.path().join("outside"), "untouched").unwrap();
    let mut dir = data.dir("orders-0").unwrap();
    for name in ["../outside", "..", ".", "", "/etc/hostname", "a/b"] {
        let kind = Some(io::ErrorKind::InvalidFilename);
        assert_eq!(
            dir.open(name).err().map(|error| error.kind()),
            kind,
            "{name}"
        );
        assert_eq!(
            dir.remove(name).err().map(|error| error.kind()),
            kind,
            "{name}"
        );
        assert_eq!(
            data.dir(name).err().map(|error| error.kind()),
            kind,
            "{name}"
        );
        assert_eq!(
            data.remove_dir(name).err().map(|error| error.kind()),
            kind,
            "{name}"
        );
        let error = data.rename_dir("orders-0", name).err();
        assert_eq!(error.map(|error| error.kind()), kind, "{name}");
    }
}

#[test]
fn a_renamed_directory_is_another() {
    let (_temp, data) = data();
    let mut dir = data.dir("orders-0").unwrap();
    dir.create("a").unwrap();
    let file = dir.open("a").unwrap();
    data.rename_dir("orders-0", "orders-0-delete").unwrap();
    assert_eq!(dir.list().unwrap(), []);
    let mut renamed = data.dir("orders-0-delete").unwrap();
    assert_eq!(renamed.list().unwrap().len(), 1);
    data.remove_dir("orders-0-delete").unwrap();
    sync(&file).unwrap();
    data.sync().unwrap();
    assert_eq!(data.list_dirs().unwrap(), Vec::<String>::new());
    let error = data.remove_dir("orders-0-delete").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn only_directories_are_listed_as_such() {
    let (temp, data) = data();
    std::fs::write(temp.path().join("meta.properties"), "").unwrap();
    for name in ["b-0", "a-1", "a-0"] {
        data.dir(name).unwrap().create("a").unwrap();
    }
    assert_eq!(data.list_dirs().unwrap(), ["a-0", "a-1", "b-0"]);
}

#[test]
fn reserved_room_is_no_part_of_the_file_and_is_given_back() {
    use std::os::unix::fs::MetadataExt;
    let (temp, data) = data();
    let mut dir = data.dir("orders-0").unwrap();
    let size = |temp: &TempDir| {
        let metadata = std::fs::metadata(temp.path().join("orders-0/a")).unwrap();
        (metadata.len(), metadata.blocks() * 512)
    };
    dir.create("a").unwrap();
    write(&mut dir, "a", 0, &[1; 10]);
    dir.reserve("a", 0, 1 << 20);
    let (length, room) = size(&temp);
    assert_eq!(length, 10);
    if room < 1 << 20 {
        return eprintln!("this file system reserves nothing");
    }
    write(&mut dir, "a", 10, &[2; 10]);
    dir.truncate("a", 20).unwrap();
    let (length, room) = size(&temp);
    assert_eq!(length, 20);
    assert!(room < 1 << 20, "{room} bytes are still taken");
    dir.reserve("none", 0, 1);
}
