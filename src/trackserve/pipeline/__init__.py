"""From hits to tracks in four networks and three algorithms: a file a stage, and `stages`, the table.

hits -> features -> order -> embedding -> neighbours -> filter -> cut -> triplets -> gnn -> tracks
"""
