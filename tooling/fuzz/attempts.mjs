import { QError } from '../../packages/transformers/dist/index.js';

/** Runs every action; then throws what was thrown, an error that is not Q's first. */
export async function attempts(...actions) {
  const errors = [];
  for (const action of actions) {
    try {
      await action();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw errors.find((error) => !(error instanceof QError)) ?? errors[0];
}
