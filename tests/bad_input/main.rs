//! What comes from outside and is wrong: frames, requests, files on the disk, command lines. Each
//! ends in one clear answer, hurts nobody else, and loses nothing that was acknowledged.

mod disk;
mod frames;
mod start;
