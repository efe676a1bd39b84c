//! What `pack --help` says beyond its options. A paragraph is a line, which the terminal breaks.

/// What RAW may be, and what becomes of it.
pub const ABOUT: &str = "\
Pack face crops into a data set

RAW is one of

- a folder with one folder of images per identity, at any depth: RAW/NAME/1.jpg or \
  RAW/part/NAME/1.jpg. A warning names folders that occur in several parts (train, val); --join-parts \
  makes them one identity. Hidden files and folders, and those of operating systems (__MACOSX, @eaDir, \
  $RECYCLE.BIN, Thumbs.db), are skipped and counted

- MXNet RecordIO: a .rec file, such as that of MS1MV3 or Glint360K, or a folder with train.rec or \
  other .rec files. Where a .idx lies beside it, the file is not scanned. A class is the same person in \
  all files that are read together

- a list of images: lines `path<TAB>label` or `path label`, the .lst of im2rec or face2rec2, lines of \
  JSON, or columns between commas, semicolons or tabs under a header such as path,label or \
  file_name,class, and perhaps landmarks x1,y1 to x5,y5; --columns names or numbers others. `-` reads a \
  list from standard input. Paths start at --root, and must not lead out of it; without --root they \
  start at the list's folder, and may lead out of it. A line that cannot be read leaves out its own \
  image and no other

- a folder of images with metadata.csv or metadata.jsonl beside them, which is such a list, or with the table \
  metadata.parquet

- WebDataset shards: .tar, plain or compressed (.gz, .zst, .bz2, .xz), or a folder of them. A sample is \
  an image with a .cls of the same name, or a .json with label or identity; where no image has one, the \
  folders in the tar file are the identities

- .zip archives of identity folders, or a folder of them, read where they lie

- Parquet or Arrow files, or a folder of them, or one with a folder `data` of them, with a column of \
  images (bytes, or {bytes, path} as Hugging Face stores it), called image or jpg, and a column of \
  labels, called label, cls, identity or person_id (numbers, whose class names are taken if the file \
  has them, or text); --columns names others. Images may also be paths, which start at --root

- TFRecord files of tf.train.Example, as arcface-tf2 and TFace have them; LMDB databases, as CVLface \
  has them; data sets of MosaicML Streaming (MDS) and of LitData

- a verification pack of InsightFace, such as lfw.bin. It states pairs, not people. Images of equal \
  bytes are packed once. All images that pairs of one person connect are an identity, named id_N \
  after the number of its first image in the pack; an image in no such pair is an identity of its own. \
  Names come from FILE.identities.tsv instead where `pfc-ingest export` wrote it beside the pack

Of a data set with several splits, such as train and test, --split says which are read.

Several files can be given as a pattern in quotes: 'train-{0000..0127}.tar', 'part_*.rec' or \
'{train,val}.parquet'. What `pfc-ingest export` writes can be packed again with the names of its \
identities, which are in identities.tsv where the format cannot hold them.

A damaged .rec or tar file is an error; --salvage packs what is whole in it, and lists the damage.

JPEG, PNG, BMP, PGM/PPM and WebP are told by their content. A JPEG that already has the size is \
stored byte for byte; anything else is turned upright, resized and encoded as JPEG. Every image is \
decoded once: one that cannot be is left out and listed with its reason in OUT/quarantine.jsonl.

A pack that was stopped, killed or cut off from power goes on where it was when the same command is \
run again, and ends with the same bytes as one that never stopped.

Labels count from 0. All sources follow the same rules: 3, 3.0, +3 and 3e0 are the number 3; 007 is a \
name; an empty field, nan, None, NA, -1 and 0.5 are no label, and only their own image is left out. \
Where all labels are numbers, identities keep that order, so that dense labels stay as they are. Gaps are \
closed, with a warning, and each identity is named after its former number (id_CLASS in RecordIO). \
Names are numbered in byte order; so are numbers that are mixed with names, with a warning. Where both \
label and identity are given, the label decides the order and the identity is the name.";

/// Examples, and what it takes.
pub const AFTER: &str = "\
Examples:
  pfc-ingest pack faces data
  pfc-ingest pack photos data --size 128 --fit pad --quality 90
  pfc-ingest pack glint360k/train.rec data
  pfc-ingest pack photos data --landmarks landmarks.txt
  pfc-ingest pack photos.csv data --align
  pfc-ingest pack photos data --detector face_detection_yunet_2023mar.onnx
  pfc-ingest pack faces.csv data --root /mnt/faces
  find faces -name '*.jpg' | awk -F/ '{print $0 \"\\t\" $2}' | pfc-ingest pack - data
  pfc-ingest pack 'shards/train-{0000..0127}.tar' data
  pfc-ingest pack lfw.zip data
  pfc-ingest pack hub/my-faces data --split train
  pfc-ingest pack lfw.bin data --json | jq .identities

Interrupted packs: finished shards are kept, with a journal in OUT/journal that is removed at the end. \
The next run reads them once and compares their checksums (170 GB at 1 GB/s: three minutes); at most \
one shard is packed again. If the input, the options or the version have changed, the command says so and stops: \
--restart begins anew. A replacement (--force) grows in `.OUT.tmp` beside OUT and goes on as well.

Several workers: N workers, on one machine or many, pack disjoint shards into one OUT or each into its own; \
then `pfc-ingest merge` joins them, and the result has the same bytes as that of a single run.
  pfc-ingest pack faces data --worker 0/2 & pfc-ingest pack faces data --worker 1/2; wait
  pfc-ingest merge data
  srun -n 8 bash -c 'pfc-ingest pack faces data --worker $SLURM_PROCID/$SLURM_NTASKS'
All of them must give the input by the same path, and a shared OUT must be on a disk that they all see.

The same input, options and seed give the same bytes, whatever the number of threads or workers.

Memory: the list of images (about 30 bytes each in folders, 40 in RecordIO and tables, 40 and the \
name in lists and tar; with --landmarks 48 more; measured with 17 million images: 0.4 GiB for \
folders, 0.7 GiB for RecordIO, 0.8 GiB for a list) and, per thread, one image and its pixels; a .bin pack is held whole.

Time: --validate full decodes every image; header looks at a few hundred bytes of each and takes a \
fifth of the processor time. It finds files that are no JPEG, of another size or cut short, but no \
damage inside; brightness, contrast and sharpness are then NaN for images that keep their bytes, and \
the manifest's arguments say --validate=header.

Disk: images in compressed .tar files, .parquet and .arrow files are first unpacked, without being \
decoded, to a nameless temporary file beside OUT, which takes their size until the \
end; each worker makes its own, and so does a pack that goes on.";
