import { PlacementError, skipRule } from '@q/config';
import type { ModuleTree, Tree } from '../tree.js';
import { readTree } from '../tree.js';
import { type DeviceMapInput, isOffload, mapPairs } from '../types.js';

/** What the planner has to know of a quantization. */
export interface Quantization {
  /** Bits that a value takes, scales aside: 4, 8. */
  bits: number;
  /** `llm_int8_skip_modules`: replaces the modules that are kept by default. */
  skipModules?: readonly string[] | null;
  /** `llm_int8_enable_fp32_cpu_offload`. Default false. */
  cpuOffload?: boolean;
}

export interface Conversion {
  /** Patterns of the modules that keep their dtype, sorted. */
  notConverted: string[];
  /** Paths of the linears that are quantized. */
  converted: string[];
  /** Paths of the linears that are not. */
  linearsKept: string[];
  /** Entries of `skipModules` that match no linear. */
  withoutEffect: readonly string[];
}

const unique = (names: readonly string[]): string[] => [...new Set(names)];

/**
 * Modules that stay as they are: those the config names, or else what is tied and those that the tree keeps dense
 * (without such a list the last parameter and the output embeddings, as in Python); then those kept in float32, then
 * (with `cpuOffload`) those that a custom map puts on cpu or disk.
 */
const keptModules = (tree: Tree, quantization: Quantization, deviceMap: DeviceMapInput | null): string[] => {
  const { skipModules, cpuOffload = false } = quantization;
  const kept = tree.keepDense ?? [[...tree.parameters.keys()].at(-1), tree.outputEmbeddings];
  const byDefault = [...tree.tiedWeights.keys(), ...tree.tiedWeights.values(), ...kept]
    .filter((name) => typeof name === 'string')
    .map((name) => name.replace(/\.weight$/, ''));
  const offloaded =
    cpuOffload && deviceMap !== null ? mapPairs(deviceMap).filter(([, device]) => isOffload(device)) : [];
  return unique([...(skipModules ?? byDefault), ...tree.keepInFp32, ...offloaded.map(([path]) => path)]).sort();
};

/**
 * Which linears bitsandbytes replaces and which it keeps. Sources: transformers 5 `should_convert_module`
 * (`skipRule` of `@q/config`) and the bitsandbytes quantizers. A tree's linears are its modules of
 * the classes in `linearClasses`.
 * @param deviceMap a custom map, if any
 * @throws PlacementError (`fields.rule` `quantized_offload`) when the custom map puts modules on cpu or disk without
 *   `cpuOffload`
 */
export const planQuantization = (
  source: ModuleTree | Tree,
  quantization: Quantization,
  deviceMap: DeviceMapInput | null = null,
): Conversion => {
  const tree = readTree(source);
  if (deviceMap !== null && refusesOffload(quantization, deviceMap))
    throw new PlacementError('planQuantization', quantizedOffload.what, quantizedOffload.detail);
  const notConverted = keptModules(tree, quantization, deviceMap);
  const rule = skipRule(notConverted);
  const linears = [...tree.modules.values()]
    .filter(({ className }) => tree.linearClasses.has(className))
    .map(({ path }) => path);
  const kept = new Set(linears.filter((path) => rule.skips(path)));
  return {
    notConverted,
    converted: linears.filter((path) => !kept.has(path)),
    linearsKept: [...kept],
    withoutEffect: skipRule(quantization.skipModules ?? []).unmatched(linears),
  };
};

/**
 * Bytes per element of the weights that are quantized, by parameter path. Scales are not counted, as in transformers.
 */
export const convertedBytes = ({ converted }: Conversion, { bits }: Quantization): Map<string, number> =>
  new Map(converted.map((path) => [`${path}.weight`, bits / 8]));

/** transformers refuses quantized modules on cpu or disk, unless `cpuOffload` is set or everything is on the cpu. */
export const refusesOffload = ({ cpuOffload = false }: Quantization, deviceMap: DeviceMapInput): boolean => {
  const devices = new Set(mapPairs(deviceMap).map(([, device]) => device));
  const onlyCpu = devices.size === 1 && devices.has('cpu');
  return !cpuOffload && !onlyCpu && [...devices].some(isOffload);
};

/** What is wrong with quantized modules on cpu or disk. */
export const quantizedOffload = {
  what: 'quantized modules are placed on the cpu or the disk',
  detail: {
    rule: 'quantized_offload',
    why: 'bitsandbytes runs on GPUs, so transformers refuses such a map',
    fix: 'give the GPUs more memory, set llmInt8EnableFp32CpuOffload to keep those modules unquantized, or set quantizedOffload to let Q run them',
  },
};
