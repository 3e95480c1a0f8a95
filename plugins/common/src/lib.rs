//! What recgate's plugins over folders of recordings have in common: reading a folder without leaving it and a file
//! without mixing two versions of it, headers of WAV files, the question whether a file is still being written, and a
//! log that stays short.

pub mod clock;
pub mod folder;
pub mod open;
pub mod report;
pub mod wav;
