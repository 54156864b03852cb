// Packs folders of golden data (a checkpoint with expected.safetensors) into fixtures/models/NAME.br:
//   node scripts/pack-fixtures.mjs FOLDER NAME...     NAME is a path below FOLDER; its slashes become dots
// A pack is brotli over a JSON header with its length (uint32), and the bytes of all tensors as byte planes: of each
// tensor all first bytes of its elements, then all second ones, which compresses better.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants } from 'node:zlib';

const widths = { F64: 8, I64: 8, F32: 4, I32: 4, F16: 2, BF16: 2, I16: 2, U8: 1, I8: 1, BOOL: 1 };
const texts = /^(config|config\.legacy|generation_config|model\.safetensors\.index)\.json$/;
const out = join(dirname(fileURLToPath(import.meta.url)), '../fixtures/models');
const [root, ...names] = process.argv.slice(2);

/** Header text and entries of a safetensors file. */
function readSafetensors(path) {
  const bytes = readFileSync(path);
  const length = Number(bytes.readBigUInt64LE(0));
  const text = bytes.subarray(8, 8 + length).toString();
  const { __metadata__, ...header } = JSON.parse(text);
  const tensors = Object.entries(header).map(
    ([
      name,
      {
        dtype,
        shape,
        data_offsets: [from, to],
      },
    ]) => ({
      name,
      dtype,
      shape,
      bytes: bytes.subarray(8 + length + from, 8 + length + to),
    }),
  );
  return { text, tensors };
}

/** The bytes of elements with all first bytes in front. */
function planes(bytes, width) {
  const count = bytes.length / width;
  const split = Buffer.alloc(bytes.length);
  for (let i = 0; i < bytes.length; i++) split[(i % width) * count + Math.floor(i / width)] = bytes[i];
  return split;
}

function packTensors(tensors, parts) {
  return tensors.map(({ name, dtype, shape, bytes }) => {
    parts.push(planes(bytes, widths[dtype]));
    return { name, dtype, shape, width: widths[dtype], bytes: bytes.length };
  });
}

/** A file of PyTorch, whose numbers lie at multiples of their size; bytes that are left over come behind. */
function packFile(path, parts) {
  const bytes = readFileSync(path);
  const even = bytes.length - (bytes.length % 4);
  parts.push(planes(bytes.subarray(0, even), 4), bytes.subarray(even));
  return [
    { width: 4, bytes: even },
    { width: 1, bytes: bytes.length - even },
  ];
}

for (const name of names) {
  const folder = join(root, name);
  const parts = [];
  const files = {};
  for (const file of readdirSync(folder).sort()) {
    if (texts.test(file)) files[file] = { text: readFileSync(join(folder, file), 'utf8') };
    if (file.endsWith('.bin')) files[file] = { whole: packFile(join(folder, file), parts) };
    if (!file.endsWith('.safetensors') || file.startsWith('expected')) continue;
    const { text, tensors } = readSafetensors(join(folder, file));
    files[file] = { header: text, tensors: packTensors(tensors, parts) };
  }
  // The outputs of all variants of a quantized model lie beside their folders.
  const own = join(folder, 'expected.safetensors');
  const { tensors } = readSafetensors(existsSync(own) ? own : join(dirname(folder), 'expected.safetensors'));
  const folderName = name.slice(name.lastIndexOf('/') + 1);
  const variant = folderName === 'fp16' ? 'fp32' : folderName; // what is not quantized was computed in float32
  const wanted = tensors.filter(
    (tensor) => existsSync(own) || !tensor.name.includes('.') || tensor.name.endsWith(`.${variant}`),
  );
  const header = Buffer.from(JSON.stringify({ files, expected: packTensors(wanted, parts) }));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(header.length);
  const packed = brotliCompressSync(Buffer.concat([length, header, ...parts]), {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 24 },
  });
  const target = join(out, `${name.replaceAll('/', '.')}.br`);
  writeFileSync(target, packed);
  console.log(target, packed.length);
}
