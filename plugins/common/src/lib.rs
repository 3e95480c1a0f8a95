//! What recgate's plugins over folders of recordings have in common: reading a folder without leaving it and a file
//! without mixing two versions of it, headers of WAV files, the question whether a file is still being written, a log
//! that stays short; and, for all of recgate's plugins, how a configuration is read.

pub mod clock;
pub mod folder;
pub mod open;
pub mod report;
pub mod settings;
pub mod wav;
