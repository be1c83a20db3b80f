// From a network's predictions to detections, as yolo/decode.py and yolo/nms.py, to the same numbers.
//
// predictions: boxes [S, S, K, 4], confidence [S, S, K] and class_scores [S, S, C], each as {dims, data}
// and with or without a batch of one in front. Boxes are fractions of the image.

const f32 = Math.fround; // NumPy computes the boxes in float32

/** Every box of the network: all cells of the first box, then of the second. */
export function scoredBoxes({ boxes, confidence, class_scores: classScores }, { xy_unit, clip }) {
  const [rows, columns, boxesPerCell] = boxes.dims.slice(-4);
  const numClasses = classScores.dims.at(-1);
  const clips = clip === "before_nms";
  const scale = xy_unit === "cell" ? f32(1 / columns) : 1;
  const limit = (value) => (clips ? Math.min(1, Math.max(0, value)) : value);
  const found = [];
  for (let k = 0; k < boxesPerCell; k++) {
    for (let cell = 0; cell < rows * columns; cell++) {
      const row = Math.floor(cell / columns);
      const column = cell % columns;
      const place = cell * boxesPerCell + k;
      const [x, y, width, height] = boxes.data.slice(4 * place, 4 * place + 4);
      const centreX = f32(f32(x * scale) + f32(column / columns));
      const centreY = f32(f32(y * scale) + f32(row / rows));
      const corners = [centreX - width / 2, centreY - height / 2, centreX + width / 2, centreY + height / 2];
      const xyxy = corners.map((value) => limit(f32(value)));
      const hasArea = !clips || (xyxy[2] > xyxy[0] && xyxy[3] > xyxy[1]);
      const classes = Array.from(classScores.data.slice(cell * numClasses, (cell + 1) * numClasses));
      const scores = classes.map((one) => (hasArea ? f32(confidence.data[place] * one) : -Infinity));
      found.push({ row, column, k, xyxy, hasArea, confidence: confidence.data[place], classes, scores });
    }
  }
  return found;
}

/** The class of the largest score, the first of equals. */
export function bestLabel(scores) {
  return scores.indexOf(Math.max(...scores));
}

/**
 * Score threshold and greedy NMS, class by class.
 *
 * Returns all boxes that score enough for a class, by descending score: {box, label, score, by, iou}.
 * `by` is the kept candidate that suppressed this one and `iou` their overlap; null where it is kept.
 */
export function candidates(boxes, { score_threshold, nms_iou_threshold, classes_per_box }) {
  const found = boxes.flatMap((box) =>
    box.scores
      .map((score, label) => ({ box, label, score, by: null, iou: null }))
      .filter(({ score, label }) => score >= f32(score_threshold)
        && (classes_per_box === "all" || label === bestLabel(box.scores))),
  );
  found.sort((one, other) => other.score - one.score);
  const kept = [];
  for (const one of found) {
    const by = kept.find((other) =>
      other.label === one.label && iou(other.box.xyxy, one.box.xyxy) > nms_iou_threshold);
    if (by) Object.assign(one, { by, iou: iou(by.box.xyxy, one.box.xyxy) });
    else kept.push(one);
  }
  return found;
}

/** Intersection over union, 0 for boxes that do not meet; an area counts by its absolute value. */
export function iou(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const intersection = Math.max(0, width) * Math.max(0, height);
  const area = ([left, top, right, bottom]) => Math.abs((right - left) * (bottom - top));
  return intersection > 0 ? intersection / (area(a) + area(b) - intersection) : 0;
}
