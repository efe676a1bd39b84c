"""Errors put into face sets, with the truth about them, for scripts/clean-score."""

import io
import json
import random
import shutil
import struct
import zipfile

FLIPS, DUPLICATES, JUNK, SPLITS, HIDDEN = 0.02, 0.03, 0.01, 0.02, 10


def inject(faces, out, seed):
    """Copies `faces` with errors; returns the truth in the form of synth.json."""
    draw = random.Random(seed)
    people = {p.name: sorted(f.name for f in p.iterdir()) for p in sorted(faces.iterdir()) if p.is_dir()}
    names = list(people)
    place = {(name, f): (name, f) for name in names for f in people[name]}
    n_images = len(place)
    truth = {"faults": [], "splits": [], "hidden": []}
    several = [name for name in names if len(people[name]) >= 4]
    # People of the benchmark keep half of their images, which become the probes.
    hidden = set(draw.sample(several, HIDDEN))
    probes = [(n, f) for n in sorted(hidden) for f in people[n][: len(people[n]) // 2]]
    for key in probes:
        del place[key]
    split = set(draw.sample([n for n in several if n not in hidden], round(SPLITS * len(names))))
    for name in sorted(split):
        for f in draw.sample(people[name], len(people[name]) // 2):
            place[name, f] = (name + "-other", f)
        truth["splits"].append({"identity": name, "other": name + "-other"})
    free = [k for k in place if k[0] not in hidden and k[0] not in split]
    for key in draw.sample([k for k in free if len(people[k[0]]) >= 3], round(FLIPS * n_images)):
        other = draw.choice([n for n in (draw.choice(names) for _ in range(20)) if n != key[0] and n not in hidden])
        place[key] = (other, key[1])
        truth["faults"].append({"path": f"{other}/{key[1]}", "fault": "mislabelled", "shows": key[0]})
    for (name, f), (to, as_file) in place.items():
        (out / "train" / to).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(faces / name / f, out / "train" / to / as_file)
    for name, f in probes:
        (out / "probes" / name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(faces / name / f, out / "probes" / name / f)
    flipped = {fault["path"] for fault in truth["faults"]}
    sound = [place[k] for k in place if "/".join(place[k]) not in flipped]
    truth["faults"] += [twice(out / "train", *key, draw) for key in draw.sample(sound, round(DUPLICATES * n_images))]
    truth["faults"] += junk(out / "train", draw, names, hidden, round(JUNK * n_images), faces)
    truth["hidden"] = [{"identity": name, "shows": name} for name in sorted(hidden)]
    (out / "truth.json").write_text(json.dumps(truth, indent=1))
    return truth


def pillow():
    try:
        from PIL import Image
    except ImportError:
        return None
    return Image


def twice(root, name, file, draw):
    source, copy = root / name / file, root / name / f"copy-{file}"
    image = pillow()
    if image and draw.random() < 0.5:
        image.open(source).save(copy, quality=50)
        how = "re_encoded"
    else:
        shutil.copyfile(source, copy)
        how = "same_bytes"
    return {"path": f"{name}/copy-{file}", "fault": "duplicated", "of": f"{name}/{file}", "how": how}


def junk(root, draw, names, hidden, n, faces):
    image = pillow()
    if not image:
        return []
    faults = []
    for i in range(n):
        name = draw.choice([n for n in names if n not in hidden])
        folder = root / name
        folder.mkdir(exist_ok=True)
        source = draw.choice(sorted((faces / name).iterdir()))
        picture, how = image.open(source).convert("RGB"), draw.choice(["blank", "tiny", "strip"])
        if how == "blank":
            picture = image.new("RGB", picture.size, (draw.randrange(40, 200),) * 3)
        elif how == "tiny":
            picture = picture.resize((9, 9)).resize(picture.size, image.BICUBIC)
        else:
            strip = picture.crop((40, 0, 72, picture.size[1]))
            picture = image.new("RGB", picture.size)
            picture.paste(strip, (40, 0))
        picture.save(folder / f"junk-{i}.jpg", quality=90)
        faults.append({"path": f"{name}/junk-{i}.jpg", "fault": "junk", "how": how})
    return faults


def npy(descr, shape, data):
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data


def drawn(file, shown, spread, dim=128):
    """Writes an .npz with an embedding for every path, around the person that it shows."""
    centres = {}
    rows = io.BytesIO()
    for path, person in shown:
        if person not in centres:
            draw = random.Random(f"centre {person}")
            centres[person] = [draw.gauss(0, 1) for _ in range(dim)]
        draw = random.Random(f"image {path}")
        # Every image has its own quality: some are far from their person.
        noise = spread * (0.6 + 0.8 * draw.random())
        rows.write(struct.pack(f"<{dim}f", *(c + draw.gauss(0, noise) for c in centres[person])))
    names = [path for path, _ in shown]
    width = max(map(len, names))
    texts = b"".join(name.ljust(width, "\0").encode("utf-32-le") for name in names)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("embeddings.npy", npy("<f4", (len(names), dim), rows.getvalue()))
        archive.writestr("names.npy", npy(f"<U{width}", (len(names),), texts))


def shown_by(truth, root):
    """Who each file below `root` shows, by the truth about it."""
    real = {s["other"]: s["identity"] for s in truth["splits"]}
    real |= {h["identity"]: h["shows"] for h in truth["hidden"]}
    faults = {f["path"].removeprefix("train/"): f for f in truth["faults"]}
    shown = []
    for path in sorted(str(p.relative_to(root)) for p in root.rglob("*.jpg")):
        fault = faults.get(path, {})
        person = fault.get("shows") or real.get(path.split("/")[0], path.split("/")[0])
        # Junk shows nobody; a copy is embedded as what it is a copy of, nearly.
        shown.append((path, f"nobody {path}" if fault.get("fault") == "junk" else person))
    return shown
