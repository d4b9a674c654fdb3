"""Writes the Parquet files of this folder with pyarrow 26.0.1, as Hugging Face's datasets and img2dataset lay them out.

Picture i of a file is "picture i " repeated: no picture format, so that the files stay small and only bytes are compared.
"""
import pyarrow as pa
import pyarrow.parquet as pq


def picture(i, n=40):
    return (f"picture {i} " * n).encode()


def huggingface(path, rows, **options):
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({
        "image": pa.array([{"bytes": picture(i), "path": f"{i:04}.jpg"} for i in range(rows)], type=struct),
        "caption": pa.array([[f"caption {i}.{k}" for k in range(i % 4)] for i in range(rows)], type=pa.list_(pa.string())),
        "cocoid": pa.array([1000 + i for i in range(rows)], type=pa.int64()),
        "split": ["val" if i % 5 == 0 else "train" for i in range(rows)],
        "scores": pa.array([[0.5, 1.5]] * rows, type=pa.list_(pa.float32())),
    })
    pq.write_table(table, path, **options)


def img2dataset(path, rows, **options):
    good = [i % 7 != 3 for i in range(rows)]
    table = pa.table({
        "url": [f"http://example.org/{i}" for i in range(rows)],
        "key": [f"{i:09}" for i in range(rows)],
        "status": ["success" if g else "failed_to_download" for g in good],
        "error_message": pa.array([None if g else "HTTP 404" for g in good], type=pa.string()),
        "width": pa.array([256] * rows, type=pa.int32()),
        "caption": [f"caption {i}" if i % 11 else None for i in range(rows)],
        "jpg": pa.array([picture(i) if g else None for i, g in enumerate(good)], type=pa.binary()),
    })
    pq.write_table(table, path, **options)


huggingface("hf.parquet", 60, row_group_size=25, data_page_size=1500, write_batch_size=3)
huggingface("hf-v2-zstd-indexed.parquet", 60, row_group_size=25, data_page_size=1500, write_batch_size=3,
            compression="zstd", data_page_version="2.0", write_page_index=True, use_dictionary=False)
img2dataset("img2dataset.parquet", 50, row_group_size=20, data_page_size=1500, write_batch_size=2, compression="gzip",
            dictionary_pagesize_limit=2000)
pq.write_table(pa.table({"file_name": ["a.jpg", "b.jpg", "a.jpg"], "text": ["one", "two", "three"]}), "names.parquet",
               compression="none")
answers = pa.list_(pa.struct([("answer", pa.string()), ("answer_confidence", pa.string()), ("answer_id", pa.int64())]))
pq.write_table(pa.table({
    "question": ["What?", "Why?"], "question_id": pa.array([7, 8], type=pa.int64()), "image_id": pa.array([1, 2]),
    "answers": pa.array([[{"answer": a, "answer_confidence": "yes", "answer_id": i} for i, a in enumerate(row)]
                         for row in (["a", "b", "a", "a"], ["so"])], type=answers),
    "image": pa.array([{"bytes": picture(i), "path": None} for i in range(2)],
                      type=pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
}), "vqa.parquet", row_group_size=1)
pq.write_table(pa.table({"file_name": pa.array([], type=pa.string()), "text": pa.array([], type=pa.string()),
                         "jpg": pa.array([], type=pa.binary())}), "empty.parquet")
