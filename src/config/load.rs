//! Reads the file, the environment and the secrets; reports every problem at once.
