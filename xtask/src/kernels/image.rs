//! The guest's file system, as the kernel unpacks it: an archive in the format "newc" of cpio.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::guest;
use crate::privilege::find_program;

/// What the laboratory of the tests calls.
const PROGRAMS: &[&str] = &["ip", "ethtool"];
/// Where the guest mounts what it needs.
const FOLDERS: &[&str] = &["dev", "proc", "sys", "tmp", "run", guest::MODULES];

const FOLDER: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;
/// The first process gets its output from it, before anything is mounted.
const CONSOLE: (u32, u32) = (5, 1);

/// Writes an archive to `path` in which `tests` is the first program to run.
///
/// # Errors
/// When a program is missing, or a file cannot be read or written.
pub(super) fn write(path: &Path, tests: &Path, modules: &[PathBuf]) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut archive = Archive { output: BufWriter::new(file), entries: 0, there: BTreeSet::new() };
    for folder in FOLDERS {
        archive.folder(Path::new("/").join(folder).as_path())?;
    }
    archive.entry(Path::new("/dev/console"), CHARACTER_DEVICE, CONSOLE, &[])?;
    archive.file(Path::new("/init"), tests)?;
    archive.libraries(tests)?;
    for name in PROGRAMS {
        let program = find_program(name).with_context(|| format!("{name} is missing: cargo xtask setup"))?;
        archive.file(&program, &program)?;
        archive.libraries(&program)?;
    }
    for (number, module) in modules.iter().enumerate() {
        archive.file(&Path::new("/").join(guest::MODULES).join(format!("{number}.ko")), module)?;
    }
    archive.end().with_context(|| format!("cannot write {}", path.display()))
}

struct Archive<W: Write> {
    output: W,
    entries: u32,
    there: BTreeSet<PathBuf>,
}

impl<W: Write> Archive<W> {
    /// The content of `from`, under the name `path`; links on the way to it are followed.
    fn file(&mut self, path: &Path, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.folder(path.parent().unwrap_or(path))?;
        Ok(self.entry(path, EXECUTABLE, (0, 0), &content)?)
    }

    /// What the dynamic loader would load, the loader included, each where it is looked for.
    fn libraries(&mut self, program: &Path) -> Result<()> {
        let said = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
        ensure!(said.status.success(), "ldd {}: {}", program.display(), said.status);
        for library in libraries_in(&String::from_utf8_lossy(&said.stdout)) {
            self.file(&library, &library)?;
        }
        Ok(())
    }

    fn folder(&mut self, path: &Path) -> Result<()> {
        let missing: Vec<_> = path.ancestors().filter(|folder| folder.parent().is_some()).collect();
        missing.into_iter().rev().try_for_each(|folder| Ok(self.entry(folder, FOLDER, (0, 0), &[])?))
    }

    /// An entry is written once; a second one of the same name is taken to be the same.
    fn entry(&mut self, path: &Path, mode: u32, device: (u32, u32), content: &[u8]) -> std::io::Result<()> {
        if !self.there.insert(path.to_owned()) {
            return Ok(());
        }
        let path = path.to_string_lossy();
        self.write(path.trim_start_matches('/'), mode, device, content)
    }

    fn write(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> std::io::Result<()> {
        self.entries += 1;
        // Both lengths were in memory, and the format has no room for larger ones.
        let (length, name_length) = (content.len() as u32, name.len() as u32 + 1);
        let header = [self.entries, mode, 0, 0, 1, 0, length, 0, 0, device.0, device.1, name_length, 0];
        write!(self.output, "070701")?;
        header.iter().try_for_each(|field| write!(self.output, "{field:08x}"))?;
        write!(self.output, "{name}\0")?;
        self.pad(6 + 8 * header.len() + name.len() + 1)?;
        self.output.write_all(content)?;
        self.pad(content.len())
    }

    /// Fields begin at multiples of four bytes.
    fn pad(&mut self, length: usize) -> std::io::Result<()> {
        self.output.write_all(&[0; 3][..length.next_multiple_of(4) - length])
    }

    fn end(mut self) -> std::io::Result<()> {
        self.write("TRAILER!!!", 0, (0, 0), &[])?;
        self.output.flush()
    }
}

/// `libc.so.6 => /lib/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`, and lines that name no file.
fn libraries_in(said: &str) -> Vec<PathBuf> {
    let named = said.lines().map(|line| line.split_once("=> ").map_or(line, |(_, path)| path).trim());
    named
        .filter(|line| line.starts_with('/'))
        .filter_map(|line| line.split(' ').next())
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_and_every_library_are_found() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tstatically linked\n";
        let expected = ["/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries_in(said), expected);
    }

    #[test]
    fn an_archive_is_made_of_aligned_entries_with_their_folders_first() {
        let mut archive = Archive { output: Vec::new(), entries: 0, there: BTreeSet::new() };
        archive.folder(Path::new("/a/b")).unwrap();
        archive.folder(Path::new("/a/c")).unwrap();
        archive.entry(Path::new("/a/b/file"), EXECUTABLE, (0, 0), b"12345").unwrap();
        archive.write("TRAILER!!!", 0, (0, 0), &[]).unwrap();
        let mut rest = &archive.output[..];
        let mut names = Vec::new();
        while !rest.is_empty() {
            assert_eq!(&rest[..6], b"070701");
            let field = |number: usize| {
                let at = 6 + 8 * number;
                usize::from_str_radix(std::str::from_utf8(&rest[at..at + 8]).unwrap(), 16).unwrap()
            };
            let (length, name_length) = (field(6), field(11));
            names.push(String::from_utf8_lossy(&rest[110..110 + name_length - 1]).into_owned());
            let content = (110 + name_length).next_multiple_of(4);
            rest = &rest[content + length.next_multiple_of(4)..];
        }
        assert_eq!(names, ["a", "a/b", "a/c", "a/b/file", "TRAILER!!!"]);
    }
}
