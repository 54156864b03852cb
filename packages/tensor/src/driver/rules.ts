// What the arguments of each command must be, beyond their types: ranges of integers, element types and counts of
// tensors, conditions between fields, and which memory may lie in which. From this one table come the check of the
// reference driver (check.ts) and the one of the C++ and CUDA addons (native/q_ops.h). What depends on the content of
// tensors (indices, lengths) is for the kernels to check.
//
// Expressions: expression.ts. A tensor that may be absent is checked when it is there.
import { expertRules } from './rules-experts.js';
import {
  activationKind,
  count,
  floatCode,
  largestCount,
  largestSize,
  rowsOf,
  width,
  type Rules,
} from './rules-common.js';
import type { CommandName } from './schema.js';

export type { Kind, Rules, TensorRule } from './rules-common.js';

const norm: Rules = {
  integers: width,
  tensors: {
    x: rowsOf('act'),
    residual: rowsOf('act'),
    sum: rowsOf('act'),
    weight: ['float', 'width'],
    bias: ['float', 'width'],
    out: rowsOf('act'),
  },
  where: [['residual == sum', 'residual and sum come together']],
  writes: ['sum', 'out'],
  inPlace: [
    ['sum', 'x'],
    ['sum', 'residual'],
    ['out', 'x'],
    ['out', 'residual'],
    ['out', 'sum'],
  ],
};

/** Blocks of a 4-bit weight of `values` elements. */
const bnb4 = (values: string, weight: string): NonNullable<Rules['cases']> => {
  const blocks = `ceil(${values}, blockSize)`;
  const quantized = weight === 'weight' ? 'kind == 1 && ' : '';
  return [
    {
      when: `${quantized}1`,
      integers: { blockSize: [1, largestSize], quantType: [0, 1] },
      tensors: { [weight]: ['u8', `ceil(${values}, 2)`] },
    },
    { when: `${quantized}!nestedAbsmax`, tensors: { absmax: ['f32', blocks] } },
    {
      when: `${quantized}nestedAbsmax`,
      integers: { nestedBlockSize: [1, largestSize] },
      tensors: {
        absmax: ['u8', blocks],
        nestedAbsmax: ['f32', `ceil(${blocks}, nestedBlockSize)`],
        nestedCode: ['f32', '256'],
        offset: ['f32', '1'],
      },
    },
  ];
};

const part: Rules = {
  integers: { kind: [0, 2], quantType: [0, 1], computeDtype: floatCode },
  notNegative: ['threshold'],
  tensors: { bias: ['float', 'n'] },
  cases: [
    { when: 'kind == 0', tensors: { weight: ['float', 'n * k'] } },
    ...bnb4('n * k', 'weight'),
    {
      when: 'kind == 2',
      tensors: { weight: ['i8', 'n * k'], absmax: ['f32', 'n'] },
      // 127 * 127 * k below 2^31
      where: [['k <= 133152', 'weight is int8, and its sums over more than 133152 values may leave 32 bits']],
    },
  ],
};

const wholeGroups = [
  'numKvHeads > 0 && numHeads % numKvHeads == 0',
  'numHeads must be a multiple of numKvHeads',
] as const;
const queriesFit = [
  'qOffset + strided(numKvHeads, qGroupStride, numHeads / numKvHeads * headDim) <= rowStride',
  'qOffset and qGroupStride lead the queries past their row',
] as const;
const keysFit = [
  'kOffset + strided(numKvHeads, kvStride, headDim) <= rowStride',
  'kOffset and kvStride lead the keys past their row',
] as const;
const valuesFit = [
  'vOffset + strided(numKvHeads, kvStride, valueDim) <= rowStride',
  'vOffset and kvStride lead the values past their row',
] as const;
const sameCaches = [
  'dtype(keyCache) == dtype(valueCache) && bytes(keyCache) / headDim == bytes(valueCache) / valueDim && bytes(valueCache) % valueDim == 0',
  'valueCache must be of the dtype of keyCache, with as many rows, of valueDim each',
] as const;
const rotaryFits = [
  'rotaryDim % 2 == 0 && rotaryOffset + rotaryDim <= headDim',
  'rotaryDim must be even, and at most headDim with rotaryOffset',
] as const;
const headSizes: Rules['integers'] = {
  numHeads: [1, largestSize],
  numKvHeads: [1, largestSize],
  headDim: [1, largestSize],
};
const paged: Rules['integers'] = {
  ...headSizes,
  valueDim: [1, largestSize],
  blockSize: [1, largestSize],
  maxBlocks: [1, largestSize],
};

/** Positions and distances are added in 32 bits. */
const largestDistance = 2 ** 30;
const scored: Rules['integers'] = {
  ...paged,
  distances: [0, largestDistance],
  biasOffset: [0, largestDistance],
};

const attention: Rules = {
  integers: scored,
  tensors: {
    qkv: ['act', 'tokens * rowStride'],
    keyCache: ['float', 'numKvHeads * blockSize * headDim'],
    valueCache: ['float', 'numKvHeads * blockSize * valueDim'],
    out: ['act', 'tokens * numHeads * valueDim'],
    sequenceStarts: ['i32', 'sequences + 1'],
    contextLengths: ['i32', 'sequences'],
    blockTables: ['i32', 'sequences * maxBlocks'],
    alibiSlopes: ['f32', 'numHeads'],
    distanceBias: ['f32', 'distances * numHeads'],
    sinks: ['float', 'numHeads'],
  },
  where: [wholeGroups, queriesFit, sameCaches],
  cases: [{ when: 'distanceBias', integers: { distances: [1, largestDistance] } }],
  writes: ['out'],
};

const headNorm: Rules = {
  integers: { centred: [0, 1], roundFirst: [0, 1], dtype: floatCode },
  tensors: { x: ['act', 'rows * rowStride'] },
  where: [['length(parts) > 0', 'parts must not be empty']],
  items: {
    parts: {
      integers: { width: [1, largestSize], group: [1, largestSize] },
      tensors: { weight: ['float', 'strided(count, weightStride, width)'] },
      where: [
        ['count % group == 0', 'count must be a multiple of group'],
        ['count <= group || groupStride >= group * width', 'groupStride must keep the groups apart'],
        [
          'offset + strided(count / group, groupStride, group * width) <= rowStride',
          'offset and groupStride lead the heads past their row',
        ],
      ],
    },
  },
  writes: ['x'],
};

const linear: Rules = {
  integers: { k: [1, largestSize], dtype: floatCode, activation: activationKind, gated: [0, 1] },
  tensors: { x: ['act', 'rows * k'] },
  where: [
    ['length(parts) > 0', 'parts must not be empty'],
    ['sum(parts.n) <= 2147483647', 'parts have more than 2^31 - 1 columns together'],
  ],
  items: { parts: part },
  writes: ['out'],
};

const binary: Rules = {
  integers: count,
  tensors: { a: ['act', 'count'], b: ['act', 'count'], x: ['act', 'count'], out: ['act', 'count'] },
  writes: ['out'],
  inPlace: [
    ['out', 'a'],
    ['out', 'b'],
    ['out', 'x'],
  ],
};

const sameDType = ['dtype(x) == dtype(out)', 'out must have the dtype of x'] as const;

/** See the top of this file. Names that a command does not have are passed over, so that commands can share rules. */
export const rules: Readonly<Record<CommandName, Rules>> = {
  fill: { tensors: { out: ['any'] }, writes: ['out'] },
  random: {
    integers: { kind: [0, 2], seed: [-largestCount, largestCount] },
    cases: [{ when: 'kind != 2', tensors: { out: ['float'] } }],
    writes: ['out'],
  },
  copy: {
    where: [['bytes(src) == bytes(out)', 'out must have as many bytes as src']],
    writes: ['out'],
    inPlace: [['out', 'src']],
  },
  cast: {
    where: [
      ['count(x) == count(out)', 'out must have as many elements as x'],
      [
        'dtype(x) <= bf16 && dtype(out) <= bf16 || dtype(x) == i64 && dtype(out) == i32',
        'x and out must be floats, or i64 and i32',
      ],
    ],
    writes: ['out'],
  },

  embedding: {
    integers: width,
    tensors: { table: ['float', 'vocab * width'], ids: ['i32', 'rows'], out: rowsOf('act') },
    writes: ['out'],
  },
  selectRows: {
    integers: width,
    tensors: { x: ['any'], indices: ['i32', 'rows'], out: rowsOf('any') },
    where: [sameDType],
    writes: ['out'],
  },
  scatterRows: {
    integers: width,
    tensors: { x: rowsOf('any'), indices: ['i32', 'rows'], out: ['any'] },
    where: [sameDType],
    writes: ['out'],
  },
  concatColumns: {
    tensors: { out: ['act', 'rows * rowStride'] },
    where: [['length(parts) > 0', 'parts must not be empty']],
    items: {
      parts: {
        integers: { width: [1, largestSize] },
        tensors: { x: ['act', 'rows * xRowStride'] },
        where: [
          ['xOffset + strided(count, xStride, width) <= xRowStride', 'xOffset and xStride lead past the rows of x'],
          ['offset + strided(count, stride, width) <= rowStride', 'offset and stride lead past the rows of out'],
          ['count <= 1 || stride >= width', 'stride must keep the pieces apart'],
        ],
      },
    },
    writes: ['out'],
  },

  linear: {
    ...linear,
    notNegative: ['limit'],
    cases: [
      {
        when: 'gated',
        tensors: { out: ['act', 'rows * first(parts.n)'] },
        where: [
          [
            'length(parts) == 2 && first(parts.n) == last(parts.n)',
            'gated takes two parts, gate and up, with as many columns each',
          ],
        ],
      },
      { when: 'gated && residual', tensors: { residual: ['act', 'rows * first(parts.n)'] } },
      { when: '!gated', tensors: { out: ['act', 'rows * sum(parts.n)'] } },
      { when: '!gated && residual', tensors: { residual: ['act', 'rows * sum(parts.n)'] } },
    ],
    inPlace: [['out', 'residual']],
  },

  ...expertRules,

  rmsNorm: norm,
  layerNorm: norm,
  headNorm,

  ropeKvWrite: {
    integers: { ...paged, numHeads: [0, largestSize], scalingLength: [1, largestSize] },
    tensors: {
      qkv: ['act', 'tokens * rowStride'],
      keyCache: ['float', 'numKvHeads * blockSize * headDim'],
      valueCache: ['float', 'numKvHeads * blockSize * valueDim'],
      positions: ['i32', 'tokens'],
      sequenceOf: ['i32', 'tokens'],
      blockTables: ['i32'],
      inverseFrequencies: ['f32', 'rotaryDim / 2'],
    },
    where: [wholeGroups, queriesFit, keysFit, valuesFit, sameCaches, rotaryFits],
    writes: ['qkv', 'keyCache', 'valueCache'],
  },
  attention,

  activation: { ...binary, integers: { ...count, kind: activationKind } },
  gatedActivation: {
    integers: { ...width, kind: activationKind, dtype: floatCode },
    notNegative: ['limit'],
    tensors: { x: ['act', 'rows * width * 2'], out: rowsOf('act') },
    writes: ['out'],
  },
  add: binary,
  scale: binary,
  softmax: {
    integers: width,
    tensors: { x: rowsOf('act'), out: rowsOf('act') },
    writes: ['out'],
    inPlace: [['out', 'x']],
  },
  crossEntropy: {
    integers: width,
    tensors: { logits: rowsOf('logits'), targets: ['i32', 'rows'], out: ['f32', 'rows'] },
    writes: ['out'],
  },

  argmax: { integers: width, tensors: { x: rowsOf('logits'), out: ['i32', 'rows'] }, writes: ['out'] },
  sample: {
    integers: width,
    tensors: {
      logits: rowsOf('logits'),
      out: ['i32', 'rows'],
      floats: ['f32', 'rows * 4'],
      ints: ['i32', 'rows * 4'],
      counters: ['i32', 'rows'],
      history: ['i32', 'rows * historyCapacity'],
      historyLengths: ['i32', 'rows'],
    },
    where: [['history == historyLengths', 'history and historyLengths come together']],
    writes: ['out'],
  },
  advance: {
    tensors: {
      sampled: ['i32', 'rows'],
      tokenIds: ['i32', 'rows'],
      positions: ['i32', 'rows'],
      contextLengths: ['i32', 'rows'],
      counters: ['i32', 'rows'],
      history: ['i32', 'rows * historyCapacity'],
      historyLengths: ['i32', 'rows'],
    },
    where: [['historyLengths || !history', 'historyLengths must come with history']],
    writes: ['tokenIds', 'positions', 'contextLengths', 'counters', 'history', 'historyLengths'],
    inPlace: [['tokenIds', 'sampled']],
  },

  quantize4bit: {
    integers: { ...count, blockSize: [2, largestSize], quantType: [0, 1] },
    tensors: { x: ['float', 'count'], codes: ['u8', 'ceil(count, 2)'], absmax: ['f32', 'ceil(count, blockSize)'] },
    where: [['blockSize % 2 == 0', 'blockSize must be even']],
    writes: ['codes', 'absmax'],
  },
  dequantize4bit: {
    integers: { ...count, blockSize: [2, largestSize] },
    tensors: { out: ['float', 'count'] },
    where: [['blockSize % 2 == 0', 'blockSize must be even']],
    cases: bnb4('count', 'codes'),
    writes: ['out'],
  },
  quantizeAbsmax: {
    integers: { ...count, blockSize: [1, largestSize] },
    tensors: {
      x: ['f32', 'count'],
      out: ['u8', 'count'],
      nestedAbsmax: ['f32', 'ceil(count, blockSize)'],
      nestedCode: ['f32', '256'],
      offset: ['f32', '1'],
    },
    writes: ['out', 'nestedAbsmax', 'offset'],
  },
  quantizeInt8: {
    tensors: { x: rowsOf('float'), codes: rowsOf('i8'), absmax: ['f32', 'rows'] },
    writes: ['codes', 'absmax'],
  },
  dequantizeInt8: {
    tensors: { codes: rowsOf('i8'), absmax: ['f32', 'rows'], out: rowsOf('float') },
    writes: ['out'],
  },

  multiply: {
    integers: width,
    tensors: {
      a: ['act', 'strided(rows, aStride, width)'],
      b: ['float', 'strided(rows, bStride, width)'],
      out: rowsOf('act'),
    },
    writes: ['out'],
  },
  eagerLinear: { ...linear, tensors: { ...linear.tensors, out: ['act', 'rows * sum(parts.n)'] } },
  eagerRope: {
    integers: {
      ...headSizes,
      numHeads: [0, largestSize],
      rotaryDim: [2, largestSize],
      scalingLength: [1, largestSize],
      dtype: floatCode,
    },
    tensors: {
      qkv: ['act', 'tokens * rowStride'],
      positions: ['i32', 'tokens'],
      sequenceOf: ['i32', 'tokens'],
      inverseFrequencies: ['f32', 'rotaryDim / 2'],
    },
    where: [wholeGroups, queriesFit, keysFit, rotaryFits],
    writes: ['qkv'],
  },
  eagerHeadNorm: headNorm,
  eagerAttention: { ...attention, integers: { ...scored, dtype: floatCode } },
};
