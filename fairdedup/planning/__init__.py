"""What a run of a given size needs (`fairdedup plan`): formulas, and the measurements that they scale."""
