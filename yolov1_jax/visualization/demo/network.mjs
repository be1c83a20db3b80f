// From an image to the network's predictions, see detections.mjs: by the server or in the browser.

/** settings -> a function of a canvas, and of the file that it shows if it shows one. */
export async function openNetwork(settings) {
  return settings.model ? inBrowser(settings) : (canvas, file) => byServer(canvas, file, settings);
}

async function byServer(canvas, file, settings) {
  const body = file ?? (await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.95)));
  if (body.size > settings.max_bytes) throw Error(`The file has more than ${settings.max_bytes / 1e6} MB.`);
  const response = await fetch("predict", { method: "POST", body }).catch(() => {
    throw Error("The program that serves this page does not answer.");
  });
  if (!response.ok) throw Error(await response.text());
  return response.json();
}

async function inBrowser({ model, image_size: side, resize: rule }) {
  const runtime = await import("./ort.wasm.bundle.min.mjs");
  const session = await runtime.InferenceSession.create(model, { executionProviders: ["wasm"] });
  const type = rule === "darknet" ? "float32" : "uint8";
  return (canvas) => {
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const input = resize(pixels, side, rule);
    return session.run({ images: new runtime.Tensor(type, input, [1, side, side, 3]) });
  };
}

/** `transforms.resize_image`: RGBA {data, width, height} -> RGB [side, side, 3]. */
export function resize({ data, width, height }, side, rule) {
  const isDarknet = rule === "darknet";
  const columns = taps(width, side, isDarknet);
  const rows = taps(height, side, isDarknet);
  if (isDarknet) { // its faults: the last column is the image's, the last row has no second tap
    columns[side - 1] = [width - 1, width - 1, 1, 0];
    rows[side - 1][3] = 0;
  }
  const resized = new (isDarknet ? Float32Array : Uint8Array)(side * side * 3);
  let place = 0;
  for (const [top, bottom, ofTop, ofBottom] of rows) {
    for (const [left, right, ofLeft, ofRight] of columns) {
      for (let channel = 0; channel < 3; channel++) {
        const row = (y) => ofLeft * data[4 * (y * width + left) + channel]
          + ofRight * data[4 * (y * width + right) + channel];
        resized[place++] = isDarknet
          ? ofTop * row(top) + ofBottom * row(bottom)
          : (((ofTop * (row(top) >> 4)) >> 16) + ((ofBottom * (row(bottom) >> 4)) >> 16) + 2) >> 2;
      }
    }
  }
  return resized;
}

/** For each new pixel the two old ones that it lies between, and their weights: OpenCV's in 1/2048. */
function taps(side, newSide, isDarknet) {
  const f32 = Math.fround;
  const step = f32(f32(side - 1) / f32(newSide - 1)); // Darknet: the corner pixels coincide
  return Array.from({ length: newSide }, (_, i) => {
    const centred = Math.min(side - 1, Math.max(0, ((i + 0.5) * side) / newSide - 0.5));
    const place = f32(isDarknet ? i * step : centred);
    const first = Math.floor(place);
    const weights = [f32(1 - (place - first)), place - first];
    const used = isDarknet ? weights : weights.map((one) => Math.round(2048 * one));
    return [first, Math.min(first + 1, side - 1), ...used];
  });
}
