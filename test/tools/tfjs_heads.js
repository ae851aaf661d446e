// Compute tensors of a TensorFlow.js graph model with TensorFlow.js itself: the oracle of the importer.
//
//   npm install @tensorflow/tfjs
//   node tfjs_heads.js MODEL.json WEIGHTS.bin int32|float32 SHAPE INPUT OUTPUT NAME...
//
// SHAPE is e.g. 1,256,256,3. INPUT holds the values, little-endian, of that type; OUTPUT gets the
// named tensors as float32, one behind the other, in the layout of the file. Prints their shapes.

const fs = require('fs');
const tf = require('@tensorflow/tfjs');

async function main([model, weights, dtype, shape, input, output, ...names]) {
  const json = JSON.parse(fs.readFileSync(model));
  const network = await tf.loadGraphModel(tf.io.fromMemory({
    modelTopology: json.modelTopology,
    weightSpecs: json.weightsManifest[0].weights,
    weightData: new Uint8Array(fs.readFileSync(weights)).buffer,
  }));
  const bytes = new Uint8Array(fs.readFileSync(input)).buffer;
  const values = dtype === 'int32' ? new Int32Array(bytes) : new Float32Array(bytes);
  const image = tf.tensor(values, shape.split(',').map(Number), dtype);
  const tensors = [].concat(network.execute(image, names));
  fs.writeFileSync(output, Buffer.concat(tensors.map(t => Buffer.from(t.dataSync().buffer))));
  console.log(JSON.stringify(tensors.map(t => t.shape)));
}

main(process.argv.slice(2)).catch(error => { console.error(error.message); process.exit(1); });
