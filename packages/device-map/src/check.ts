import { PlacementError } from '@q/config';
import { type ModuleTree, type Tree, readTree } from './tree.js';
import { type DeviceMapInput, isInside, mapPairs } from './types.js';

export interface MapReport {
  /** True when every parameter and every persistent buffer has a device. */
  valid: boolean;
  /** Names without a device, module by module, parameters before buffers. */
  uncovered: string[];
  /** Keys that are no module's path. They may still be a tensor's, which is legal but most often a mistake. */
  unknownKeys: string[];
}

/**
 * Whether a device map covers a model. Buffers that are not persistent need no device. Source: accelerate
 * `check_device_map`.
 * @throws ConfigError for a tree that is not one
 */
export const checkDeviceMap = (source: ModuleTree | Tree, map: DeviceMapInput): MapReport => {
  const tree = readTree(source);
  const keys = mapPairs(map).map(([path]) => path);
  const known = new Set(keys);
  const covered = (name: string): boolean => {
    for (let path = name; path !== ''; path = path.slice(0, Math.max(0, path.lastIndexOf('.'))))
      if (known.has(path)) return true;
    return known.has('');
  };
  const uncovered = [...tree.modules.values()]
    .flatMap((module) => [...module.parameters, ...module.buffers.filter(({ persistent }) => persistent)])
    .map(({ path }) => path)
    .filter((path) => !covered(path));
  return { valid: uncovered.length === 0, uncovered, unknownKeys: keys.filter((key) => !tree.modules.has(key)) };
};

const shown = 8;

/**
 * As `checkDeviceMap`, but a map that misses something is an error that lists it.
 * @throws PlacementError with `fields.rule` `uncovered_parameters` and `fields.uncovered`
 */
export const assertDeviceMap = (source: ModuleTree | Tree, map: DeviceMapInput): MapReport => {
  const tree = readTree(source);
  const report = checkDeviceMap(tree, map);
  if (!report.valid) {
    throw new PlacementError('assertDeviceMap', 'the device map gives no device for some parameters', {
      rule: 'uncovered_parameters',
      uncovered: report.uncovered,
      fix: `add ${missingModules(tree, map, report.uncovered).slice(0, shown).join(', ')} to the map`,
    });
  }
  return report;
};

/** The highest modules above uncovered names below which the map says nothing. */
const missingModules = (tree: Tree, map: DeviceMapInput, uncovered: readonly string[]): string[] => {
  const keys = mapPairs(map).map(([path]) => path);
  const highest = uncovered.map((name) => {
    const parts = name.split('.');
    const above = parts.map((_, count) => parts.slice(0, count + 1).join('.'));
    return above.find((path) => !keys.some((key) => isInside(key, path))) ?? name;
  });
  return [...new Set(highest)].map((path) => (tree.modules.has(path) ? `"${path}"` : `the tensor "${path}"`));
};
