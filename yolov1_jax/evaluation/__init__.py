"""From raw boxes to average precision, on the host: NumPy only, so it can be read and run alone.

detections.py        what is found and what is true, per image
nms.py               score threshold and per-class non-maximum suppression
mean_ap.py           the PASCAL VOC rules
seed_protocol.py     the PyTorch reference's own measure, for a like-for-like row
annotated_images.py  an evaluation set, and the names its images go by
results_files.py     detections of any program, from files: devkit_results.py, coco_files.py
"""
