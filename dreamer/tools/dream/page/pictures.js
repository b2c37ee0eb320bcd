// Draws pictures on canvases, from the RGB bytes that the session sends.

// Return {name: [ImageData, …]} of the pictures that a header lists as [name, count, height, width].
export function unpack(listed, bytes) {
  const found = {};
  let from = 0;
  for (const [name, count, height, width] of listed) {
    found[name] = [];
    for (let each = 0; each < count; each++) {
      const image = new ImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer);
      for (let place = 0; place < pixels.length; place++, from += 3) {
        pixels[place] = 0xff000000 | (bytes[from + 2] << 16) | (bytes[from + 1] << 8) | bytes[from];
      }
      found[name].push(image);
    }
  }
  return found;
}

// Draw one picture, or several in a square grid.
export function draw(canvas, images) {
  const side = Math.ceil(Math.sqrt(images.length));
  const { width, height } = images[0];
  const gap = side > 1 ? Math.max(1, Math.round(width / 32)) : 0;
  const size = [side * (width + gap) - gap, side * (height + gap) - gap];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  canvas.classList.toggle("smooth", width >= 200);
  const context = canvas.getContext("2d");
  images.forEach((image, place) => {
    context.putImageData(image, (place % side) * (width + gap), Math.floor(place / side) * (height + gap));
  });
}
