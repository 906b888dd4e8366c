//! iWARP (MPA, DDP, RDMAP) as a sans-IO queue pair.
