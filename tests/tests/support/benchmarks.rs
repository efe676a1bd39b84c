//! Folders that are laid out as benchmarks, of the faces in `lfw`: for a shell. Who is on them is made up, so that figures
//! of them mean nothing.

/// IJB-C and IJB-B: two faces a template, two templates a person.
pub const IJB: &str = r#"
mkdir -p IJBC/loose_crop IJBC/meta && n=0
for face in lfw/*/*.jpg; do n=$((n + 1)) && cp $face IJBC/loose_crop/$n.jpg; done
awk -v n=$n 'BEGIN { meta = "IJBC/meta/ijbc_"
    for (i = 0; i < n; i++) {
        print (i + 1) ".jpg 38 51 73 51 56 71 41 92 70 92 0.99" > (meta "name_5pts_score.txt")
        print (i + 1) ".jpg " int(i / 2) " " i > (meta "face_tid_mid.txt")
    }
    for (i = 0; i < n / 2; i++) {
        for (j = 0; j < i; j++) {
            same = int(i / 2) == int(j / 2)
            print j " " i " " same > (meta "template_pair_label.txt")
        }
        search = i % 2 ? "probe_mixed" : i < n / 4 ? "gallery_G1" : "gallery_G2"
        print i "," int(i / 2) > (meta "1N_" search ".csv")
    } }'
cp -r IJBC IJBB && (cd IJBB/meta && for file in *; do mv $file ijbb${file#ijbc}; done)
for i in 1 2; do mv IJBB/meta/ijbb_1N_gallery_G$i.csv IJBB/meta/ijbb_1N_gallery_S$i.csv; done
"#;

/// MegaFace with FaceScrub, and the lists of its devkit in `data`.
pub const MEGAFACE: &str = r##"
mkdir -p data templatelists && cp -r lfw facescrub_images && cp -r lfw megaface_images
(cd facescrub_images && ls */*.jpg) > data/facescrub_lst && cp data/facescrub_lst data/megaface_lst
echo '# none' > data/facescrub_noises.txt && cp data/facescrub_noises.txt data/megaface_noises.txt
awk -F/ '{ paths = paths comma "\"" $0 "\""; ids = ids comma "\"" $1 "\""; comma = ", " }
    END { lists = "templatelists/"
        print "{\"path\": [" paths "], \"id\": [" ids "]}" > (lists "facescrub_features_list.json")
        print "{\"path\": [" paths "]}" > (lists "megaface_features_list.json_" NR "_1") }' data/facescrub_lst
"##;
