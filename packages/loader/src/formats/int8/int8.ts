import { BitsAndBytesConfig, type QuantizationConfig } from '@q/config';
import { cast, quantizeInt8, type Int8Weight, type LinearSlot, type Tensor } from '@q/tensor';
import { bitsAndBytes, isBitsAndBytes } from '../bitsandbytes/config.js';
import { checkScales } from '../bitsandbytes/parts.js';
import { checkShape } from '../check-shape.js';
import type { CheckpointFormat, FormatConfig, WeightReader } from '../format.js';
import { constant, fromDevice } from '../stored-tensor.js';
import { bnbInt8Names, bnbInt8Owner } from './names.js';
import { checkWeightFormat, recogniseInt8, type StoredBnbInt8 } from './recognise.js';

/** bitsandbytes' own default, for weights that no config describes. */
const defaultThreshold = 6;

/** LLM.int8 is defined on f16 weights: bitsandbytes rounds others first. */
const asHalf = (dense: Tensor): Tensor => (dense.dtype === 'f16' ? dense : cast(dense, 'f16'));

const config: FormatConfig<BitsAndBytesConfig> = {
  ...bitsAndBytes,
  integerProducts: true,
  asks: (given): given is BitsAndBytesConfig => isBitsAndBytes(given) && given.loadIn8bit,
  describe: () => 'int8',
  bits: () => 8,
  quantizer:
    ({ llmInt8Threshold: threshold }) =>
    (dense) =>
      quantizeInt8(asHalf(dense), { threshold }),
  derive: () => ({ config: new BitsAndBytesConfig({ loadIn8bit: true }), note: '' }),
  corrected: (stated) => ({ config: stated }),
};

/** LLM.int8 as bitsandbytes writes it. */
export const int8: CheckpointFormat<StoredBnbInt8, Int8Weight> = {
  kind: 'int8',
  labels: ['int8'],
  config,
  owner: bnbInt8Owner,
  recognise: recogniseInt8,
  layer: () => ({ format: 'int8' }),
  describe: async (_checkpoint, { weight: { shape, dtype } }) => ({
    format: 'bnb-int8',
    storedAs: 'bnb-int8',
    shape,
    dtype,
    counts: true,
  }),
  read,
  write: async ({ module }, { codes, absmax }) => {
    const names = bnbInt8Names(module);
    return [
      fromDevice(names.weight, codes),
      fromDevice(names.scb, absmax),
      constant(names.weightFormat, 'u8', [], new Uint8Array(1)),
    ];
  },
};

async function read(
  stored: StoredBnbInt8,
  slot: LinearSlot,
  reader: WeightReader,
  settings?: QuantizationConfig,
): Promise<Int8Weight> {
  const { weight, scb, weightFormat } = stored;
  checkShape(weight, slot.shape);
  if (weightFormat) checkWeightFormat(stored, await reader.bytes(weightFormat));
  return reader.owning(async (own) => ({
    kind: 'int8',
    shape: slot.shape,
    codes: own(reader.load(weight, weight.shape, 'i8')),
    absmax: own(await reader.checked(scb, checkScales)),
    threshold: settings && config.asks(settings) ? settings.llmInt8Threshold : defaultThreshold,
  }));
}
